"""Types of bases against PEFT: a few of them here, all of them in the slow suite."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bench.conformance import architectures
from bench.conformance.architecture_case import examine
from bench.conformance.architectures import examined, main, markdown
from overtone_client import InvalidArgument

#: Plain, with grouped heads, soft caps, sinks, windows, chunks, experts, another head, Conv1D.
QUICK = (
    "llama",
    "qwen3",
    "gpt2",
    "gemma2",
    "gpt_oss",
    "mistral",
    "llama4_text",
    "mixtral",
    "modernbert-decoder",
    "phi3",
)


@pytest.mark.parametrize("model_type", QUICK)
def test_a_type_that_users_have_is_as_peft_has_it(model_type: str) -> None:
    outcome = examine(model_type)
    assert outcome.verdict == "equal", outcome.words
    assert outcome.methods == ["lora", "fourierft"]
    assert outcome.num_targets > 0


def test_a_type_that_looks_at_later_tokens_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.conformance import tiny_bases

    monkeypatch.setitem(tiny_bases._SMALL, "is_decoder", False)
    outcome = examine("bert")
    assert outcome.verdict == "refused"
    assert "differ" in outcome.words


@pytest.mark.parametrize(
    ("model_type", "words"), [("qwen3_next", "keeps a state"), ("zaya", "1 rows in a step of")]
)
def test_a_type_that_keeps_more_than_keys_and_values_is_refused_in_words(
    model_type: str, words: str
) -> None:
    outcome = examine(model_type)
    assert outcome.verdict == "refused"
    assert words in outcome.words
    assert "Error" not in outcome.words


def test_a_fault_is_neither_equal_nor_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the table calls wrong or broken is found by it."""
    from bench.conformance import architecture_case

    monkeypatch.setattr(architecture_case, "TOLERANCE", 0.0)
    outcome = examine("llama")
    assert outcome.verdict == "wrong"
    assert "at token" in outcome.words
    monkeypatch.setattr(architecture_case, "load_base", lambda *given: 1 / 0)
    assert examine("llama").verdict == "broken"


@pytest.mark.slow
def test_a_type_whose_process_dies_or_hangs_ends_itself_alone(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from bench.conformance import architecture_case

    def dies(model_type: str) -> Any:
        if model_type == "hangs":
            while True:
                pass
        if model_type == "dies":
            os._exit(3)
        return examine(model_type)

    monkeypatch.setattr(architecture_case, "examine", dies)
    rows = examined(["dies", "hangs", "llama"], jobs=2, seconds=20)
    assert [row["verdict"] for row in rows] == ["broken", "broken", "equal"]
    assert "ended with 3" in rows[0]["words"]
    assert "too long" in rows[1]["words"]


def test_the_page_and_the_last_line_say_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"type": "llama", "verdict": "equal", "words": "", "num_left_out": 0, "num_targets": 14},
        {"type": "mamba", "verdict": "refused", "words": "a | b", "num_left_out": 0}
        | {"num_targets": 4},
    ]
    monkeypatch.setattr(architectures, "examined", lambda *given: rows)
    main(["--only", "llama,mamba", "--markdown", str(tmp_path / "bases.md")])
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert document["counts"] == {"equal": 1, "refused": 1}
    page = (tmp_path / "bases.md").read_text()
    assert "1 equal, 1 refused, 0 wrong, 0 broken, 0 not built" in page
    assert "| mamba | refused |  | a \\| b |" in page


def test_a_type_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidArgument, match="'lama'"):
        main(["--only", "lama"])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_type_is_wrong_and_none_raises() -> None:
    from bench.conformance.tiny_bases import causal_types

    rows = examined(causal_types(), jobs=os.cpu_count() or 1)
    bad = {row["type"]: row["words"] for row in rows if row["verdict"] in ("wrong", "broken")}
    assert not bad
    assert sum(row["verdict"] == "equal" for row in rows) >= 40
    assert markdown(rows, {"commit": None, "date": ""})
