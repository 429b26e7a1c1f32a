import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bench.studies import demo as training_demo
from bench.studies.runs import run_one
from trainer.base import LoadedBase

STUDY = dataclasses.replace(
    training_demo.STUDY, hyper=dataclasses.replace(training_demo.STUDY.hyper, max_steps=1)
)
CONTENDERS = {one.what: one for one in STUDY.contenders}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other cost more than they bring, at such sizes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("demo")
    STUDY.prepare(made, 6)
    return made


@pytest.fixture(scope="module")
def base(work: Path) -> LoadedBase:
    return STUDY.base(work)


@pytest.mark.parametrize("style", training_demo.STYLES)
def test_pieces_fit_the_base_and_none_is_held_out(work: Path, base: LoadedBase, style: str) -> None:
    contender = next(one for one in STUDY.contenders if one.group == style)
    files = STUDY.files(work, contender)
    assert files.validation is not None
    train, held = (
        [json.loads(line)["text"] for line in file.read_text().splitlines()]
        for file in (files.training, files.validation)
    )
    assert len(train) == len(held) == 6
    assert not set(train) & set(held)
    assert all(len(base.reader(text)["input_ids"]) < base.max_length for text in train + held)


def test_a_contender_is_judged_on_its_own_style(work: Path) -> None:
    rows = [
        run_one(STUDY, CONTENDERS[f"{style}: FourierFT n=1000"], 0, work)
        for style in training_demo.STYLES
    ]
    first, second = (row["before"]["eval_loss"] for row in rows)
    assert first != second
