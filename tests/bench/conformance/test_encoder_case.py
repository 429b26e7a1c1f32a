"""Types of classifiers and embedders against PEFT: some here, all of them in the slow suite."""

import os
from collections.abc import Iterator

import pytest

from bench.conformance import encoder_case, encoders
from bench.conformance.encoder_case import encoder_types, examine_encoder
from overtone_client import InvalidArgument
from server_parts import torch_threads

#: Type and use -> whether padding changes nothing, and whether inputs share linears.
QUICK = {
    "bert:texts": (True, False),
    "xlm-roberta:embedder": (True, False),
    "deberta-v2:texts": (True, True),
    "gpt2:texts": (True, False),
    "t5:texts": (True, False),
    "bart:texts": (True, False),
    "longformer:texts": (True, True),
    "xlnet:texts": (False, True),
    "mobilebert:texts": (False, False),
    "nystromformer:embedder": (False, False),
    "mpnet:embedder": (True, False),
    "vit:images": (True, False),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


@pytest.mark.parametrize("name", QUICK)
def test_a_type_that_users_have_is_as_peft_has_it(name: str) -> None:
    row = examine_encoder(name)
    assert row["verdict"] == "equal", row["words"]
    assert (row["pads"], row["num_shared"] > 0) == QUICK[name]
    assert row["num_targets"] > 0
    assert not row["words"]


def test_a_type_without_a_head_that_is_known_is_refused_in_words() -> None:
    row = examine_encoder("siglip:images")
    assert (row["verdict"], "no head" in row["words"]) == ("refused", True)


def test_a_difference_and_a_fault_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(encoder_case, "TOLERANCE", 0.0)
        patch.setattr(encoder_case, "_ROUNDINGS", 0)
        assert examine_encoder("bert:texts")["verdict"] == "wrong"
    monkeypatch.setattr(encoder_case, "load_base", lambda *given: 1 / 0)
    row = examine_encoder("bert:texts")
    assert (row["verdict"], "ZeroDivisionError" in row["words"]) == ("broken", True)


def test_every_kind_has_its_types() -> None:
    names = encoder_types()
    assert len(names) == len(set(names)) > 150
    assert set(QUICK) <= set(names)


def test_a_type_whose_process_dies_or_hangs_ends_itself_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def examine(name: str) -> dict[str, str]:
        while name == "hangs":
            pass
        if name == "dies":
            os._exit(3)
        return {"type": name, "verdict": "equal", "words": ""}

    monkeypatch.setattr(encoder_case, "examine_encoder", examine)
    rows = encoders.examined(["dies", "hangs", "bert:texts"], seconds=0.5)
    assert [row["verdict"] for row in rows] == ["broken", "broken", "equal"]
    assert "ended with 3" in rows[0]["words"]
    assert "too long" in rows[1]["words"]


def test_a_type_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidArgument, match="'bert'"):
        encoders.main(["--only", "bert"])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_type_is_wrong_and_none_raises() -> None:
    rows = encoders.examined(encoder_types())
    bad = {row["type"]: row["words"] for row in rows if row["verdict"] in ("wrong", "broken")}
    assert not bad
    assert sum(row["verdict"] == "equal" for row in rows) >= 140
