"""Pairs of code and docstring: what is read, in which order, and what is held out."""

import sys
from pathlib import Path

import pytest

from trainer.demo_build import code_pairs as pairs
from trainer.demo_build.package_sources import digest_of

FIRST = '''
def shown(x):
    """Show a value to whoever asks for it.

    More of it.
    """
    if x is None:
        return "nothing at all"
    return f"the value {x} was asked for"

def listed(x):
    """:param x: is no sentence at all."""
    return f"the value {x} was asked for, and is listed here"

def brief(x):
    """Return x, in too little code."""
    return x
'''
SECOND = (
    FIRST
    + '''
def other(x):
    """Say something that the first does not say."""
    if x is None:
        return "nothing at all, in the other one"
    return f"the value {x} was asked for"
'''
)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {"pairs_first": FIRST, "pairs_second": SECOND}.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").write_text("raise SystemExit  # read, never imported\n")
        (folder / "module.py").write_text(text)
        (folder / "broken.py").write_text("def (:")
        (folder / "test_it.py").write_text(text.replace("shown", "tested"))
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("packages")
def test_a_pair_is_a_sentence_and_code_without_it() -> None:
    (pair,) = pairs.code_pairs(["pairs_first"])
    assert pair.source == "pairs_first/module.py"
    assert pair.line == "Show a value to whoever asks for it."
    assert pair.code.startswith("def shown(x):\n    if x is None:")
    assert "pairs_first" not in sys.modules
    messages = pairs.as_chat(pair)["messages"]
    assert [one["role"] for one in messages] == ["system", "user", "assistant"]
    assert [one["content"] for one in messages] == [pairs.SYSTEM, pair.code, pair.line]


@pytest.mark.usefixtures("packages")
def test_what_is_held_out_says_nothing_that_was_learned() -> None:
    learned = pairs.code_pairs(["pairs_first"])
    (held,) = pairs.code_pairs(["pairs_second"], without=learned)
    assert held.line == "Say something that the first does not say."
    both = pairs.code_pairs(["pairs_first", "pairs_second"])
    assert both == [*learned, held]


def test_a_package_that_is_not_installed_gives_none() -> None:
    assert pairs.code_pairs(["no_such_package"]) == []


def test_real_packages_give_the_same_each_time_and_no_more_than_asked() -> None:
    found = pairs.code_pairs(["rich", "rq"], most=8)
    assert [pair.source.partition("/")[0] for pair in found] == ["rich"] * 8 + ["rq"] * 8
    again = pairs.code_pairs(["rich", "rq"], most=8)
    assert digest_of(map(pairs.as_chat, found)) == digest_of(map(pairs.as_chat, again))


def test_no_package_is_in_two_parts() -> None:
    every = [*pairs.LEARNED, *pairs.HELD_OUT, *pairs.TUNING]
    assert len(every) == len(set(every))
