import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.studies import digits as training_digits
from bench.studies.main import study_main
from bench.studies.runs import Contender, run_one
from bench.studies.sums import summed_up
from overtone_client import InvalidArgument
from registry.examples.images import ZipImages

EXAMPLES = 20
STUDY = dataclasses.replace(
    training_digits.STUDY, hyper=dataclasses.replace(training_digits.STUDY.hyper, n_epochs=2)
)
LORA = {"r": 2, "lora_alpha": 2, "target_modules": ["q_proj", "v_proj"]}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other cost more than they bring, at such sizes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("digits")
    STUDY.prepare(made, EXAMPLES)
    return made


def row_of(method: str, work: Path, config: dict[str, Any]) -> dict[str, Any]:
    return run_one(STUDY, Contender("one", method, config), 0, work)


def test_peft_and_we_train_as_many_numbers(work: Path) -> None:
    ours = row_of("lora", work, LORA)
    theirs = row_of("peft", work, LORA | {"peft_type": "LORA", "task_type": None})
    assert ours["coefficients"] == theirs["coefficients"] == 4 * 2 * 2 * (64 + 64)


def test_the_head_alone_trains_nothing_else(work: Path) -> None:
    row = row_of("head", work, {})
    assert row["coefficients"] == 0
    assert row["bytes"] == 4 * 5 * (64 + 1)
    assert row["after"] != row["before"]


def test_all_weights_are_all_but_the_head(work: Path) -> None:
    row = row_of("full", work, {})
    base = STUDY.base(work)
    assert base.spec.head is not None
    sizes = {name: p.numel() for name, p in base.model.named_parameters()}
    body = sum(size for name, size in sizes.items() if name not in base.spec.head.parameters)
    assert row["coefficients"] == body


def test_a_run_is_the_same_again_and_says_what_it_took(work: Path) -> None:
    config = {"n_frequency": 20}
    first, again = row_of("fourierft", work, config), row_of("fourierft", work, config)
    assert first["after"] == again["after"]
    assert first["coefficients"] == 8 * 20
    assert first["bytes"] > 4 * 8 * 20
    assert first["cpu_s"] > 0


def test_pictures_to_learn_to_tune_on_and_held_out_are_apart(tmp_path: Path) -> None:
    parts = []
    for tune in (False, True):
        files = training_digits.write_files(tmp_path, None, tune)
        assert files.validation is not None
        parts += [_pictures(files.training), _pictures(files.validation)]
    train, held, same, tuned = parts
    assert train == same
    assert not train & held
    assert not train & tuned
    assert not held & tuned


def _pictures(file: Path) -> set[bytes]:
    rows = ZipImages(file)
    return {rows.row(index)["image"].tobytes() for index in range(len(rows))}


def test_rows_become_means_and_ranges() -> None:
    rows = [
        {
            "what": "LoRA r=1",
            "coefficients": 10,
            "bytes": 40,
            "cpu_s": seconds,
            "peak_mib": 5.0,
            "before": {"accuracy": 0.2},
            "after": {"accuracy": value},
        }
        for seconds, value in ((1.0, 0.5), (9.0, 0.7), (2.0, 0.9))
    ]
    (row,) = summed_up(STUDY, rows)
    assert row["accuracy"] == pytest.approx(0.7)
    assert (row["least"], row["most"], row["cpu_s"], row["seeds"]) == (0.5, 0.9, 2.0, 3)


def test_an_unknown_contender_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InvalidArgument, match=r"--only.*none of: head alone, LoRA r=1"):
        study_main(STUDY, "about", ["--only", "LoRA r=1", "--only", "nothing"])


@pytest.mark.slow
def test_the_program_prints_one_json_object_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, single = tmp_path / "p.svg", tmp_path / "rows.json"
    given = ["--only", "FourierFT n=128", "--seeds", "1", "--examples", "6"]
    training_digits.main([*given, "--picture", str(picture), "--json", str(single)])
    (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert row["what"] == "FourierFT n=128"
    assert row["coefficients"] == 8 * 128
    assert picture.stat().st_size > 1000
    (kept,) = json.loads(single.read_text())
    kept["after"]["accuracy"] = 0.125
    single.write_text(json.dumps([kept]))
    table = tmp_path / "table.md"
    training_digits.main([*given, "--json", str(single), "--markdown", str(table)])
    assert "| FourierFT n=128 | 1,024 |" in table.read_text()
    assert "| 0.125 |" in table.read_text()  # it was not run again


@pytest.mark.parametrize("content", ["{", "[1]", '{"bench": "table"}'])
def test_a_file_of_something_else_is_not_written_over(tmp_path: Path, content: str) -> None:
    other = tmp_path / "other.json"
    other.write_text(content)
    with pytest.raises(InvalidArgument, match="no earlier study"):
        training_digits.main(["--only", "LoRA r=1", "--json", str(other)])
    assert other.read_text() == content
