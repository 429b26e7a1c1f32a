"""Every method's preset on a language model of the reader's own."""

import dataclasses
import json
from pathlib import Path

import pytest

import tiny
from bench.studies import real as training_real
from bench.studies.runs import run_one
from overtone_client import InvalidArgument
from trainer.training.preset_values import PRESETS

STUDY = dataclasses.replace(
    training_real.STUDY,
    hyper=dataclasses.replace(training_real.STUDY.hyper, max_steps=1, max_length=1024),
)
CONTENDERS = {one.what: one for one in STUDY.contenders}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    training_real.prepare(folder, None, tiny.save_base(folder / "llama"))
    return folder


def test_both_texts_have_their_examples_and_none_is_in_both_halves(work: Path) -> None:
    for text in training_real.TEXTS:
        train = (work / f"{text}.jsonl").read_text().splitlines()
        held = (work / f"{text}-held.jsonl").read_text().splitlines()
        assert (len(train), len(held)) == (320, 32)
        assert not set(train) & set(held)
        assert all(json.loads(line) for line in train)


def test_every_preset_stands_in_both_texts() -> None:
    groups = [(one.group, one.method) for one in training_real.CONTENDERS]
    assert groups == [(text, method) for text in training_real.TEXTS for method in PRESETS]


@pytest.mark.parametrize("text", training_real.TEXTS)
def test_a_run_measures_before_and_after(work: Path, text: str) -> None:
    row = run_one(STUDY, CONTENDERS[f"{text}: lora"], 0, work)
    assert row["before"]["eval_loss"] > 0
    assert row["after"]["eval_loss"] != row["before"]["eval_loss"]


def test_without_a_base_it_says_so() -> None:
    with pytest.raises(InvalidArgument, match="--base FOLDER"):
        training_real.main(["--only=docstrings: lora"])
