"""Every method's preset on a language model of the reader's own."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from adapters_core.base.spec import BaseSpec
from adapters_core.contract.layer import Shape
from adapters_core.contract.method_registry import registered
from adapters_core.methods import LoCA
from bench.studies import real as training_real
from bench.studies import real_texts, runs
from bench.studies.main import _check_data
from bench.studies.real_contenders import PARTS, every
from bench.studies.real_tables import draw, markdown
from bench.studies.real_texts import Text, write_texts
from bench.studies.references import fixed_places
from bench.studies.runs import run_one
from bench.studies.sums import summed_up
from overtone_client import InvalidArgument
from trainer.errors import LossDiverged
from trainer.training.presets import setting_of

STUDY = dataclasses.replace(
    training_real.STUDY,
    hyper=dataclasses.replace(training_real.STUDY.hyper, max_steps=1, max_length=1024),
)
CONTENDERS = {one.what: one for one in STUDY.contenders}


def chat(answer: str) -> dict[str, Any]:
    asked = {"role": "user", "content": answer * 2}
    return {"messages": [asked, {"role": "assistant", "content": answer}]}


def few(num_learned: int, num_held: int) -> tuple[Any, Any]:
    rows = [chat(answer) for answer in ["graphs", "fonts", "plots", "terminals"] * 3]
    return rows[:num_learned], rows[:num_held]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(real_texts, "TEXTS", dict.fromkeys(real_texts.TEXTS, Text(8, 4, few)))
        base = tiny.save_base(folder / "llama")
        training_real.prepare(folder, None, base, "float32", ["subjects", "docstrings"])
    return folder


def test_a_group_has_its_files_and_a_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real_texts, "TEXTS", {"subjects": Text(8, 4, few)})
    first = write_texts(tmp_path, ["subjects"], None)
    lines = (tmp_path / "subjects.jsonl").read_text().splitlines()
    assert len(lines) == 8
    assert all(json.loads(line) for line in lines)
    assert first == write_texts(tmp_path, ["subjects"], None)
    assert first != write_texts(tmp_path, ["subjects"], 2)


def test_too_few_installed_texts_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real_texts, "TEXTS", {"subjects": Text(80, 4, few)})
    with pytest.raises(InvalidArgument, match="12 and 4 examples are installed here, 80"):
        write_texts(tmp_path, ["subjects"], None)


def test_a_contender_of_one_name_is_the_same_in_every_part() -> None:
    found = {one.what: one for one in every()}
    for own in PARTS.values():
        assert all(found[one.what] == one for one in own)


@pytest.mark.parametrize("what", [one.what for one in every() if one.method in registered()])
def test_every_contender_is_a_job_on_the_base_of_the_figures(what: str) -> None:
    widths = {"q_proj": 576, "v_proj": 192}
    targets = {
        f"layers.{layer}.{name}": Shape(out, 576)
        for layer in range(30)
        for name, out in widths.items()
    }
    one = CONTENDERS[what]
    hyper = dataclasses.replace(STUDY.hyper, **one.hyper)
    found = setting_of(one.method, one.config, hyper, BaseSpec("made", "sha256:0", targets))
    assert len(found.targets) == 60


def test_parts_that_search_presets_see_no_text_of_the_others() -> None:
    for name, own in PARTS.items():
        assert {one.group.endswith("-tuning") for one in own} == {name == "presets"}


@pytest.mark.parametrize("text", ["subjects", "docstrings"])
def test_a_run_measures_before_and_after(work: Path, text: str) -> None:
    row = run_one(STUDY, CONTENDERS[f"{text}: LoRA r=1"], 0, work)
    assert row["before"]["eval_loss"] > 0
    assert row["after"]["eval_loss"] != row["before"]["eval_loss"]
    names = {"right"} if text == "subjects" else {"rouge_l", "exact"}
    assert all(0 <= row["after"][name] <= 1 for name in names)
    assert row["steps"] == 1
    assert row["data"].startswith("sha256:")


def test_the_base_alone_is_measured_and_not_trained(work: Path) -> None:
    row = run_one(STUDY, CONTENDERS["subjects: base alone"], 0, work)
    assert (row["steps"], row["coefficients"]) == (0, 0)
    assert row["after"]["eval_loss"] == row["before"]["eval_loss"]


def test_a_run_that_diverges_is_a_row_without_figures(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverges(*given: Any) -> None:
        raise LossDiverged(7, 0.1, 50.0, 12.0)

    monkeypatch.setattr(runs, "run_job", diverges)
    row = run_one(STUDY, CONTENDERS["subjects: LoRA r=1"], 0, work)
    assert "step 7" in row["diverged"]
    assert row["after"] == {}


def test_rows_of_other_data_are_not_mixed() -> None:
    known = [{"what": "a", "group": "subjects", "data": "sha256:1"}]
    _check_data(known, {"what": "b", "group": "docstrings", "data": "sha256:2"})
    with pytest.raises(InvalidArgument, match="b was run on sha256:2"):
        _check_data(known, {"what": "b", "group": "subjects", "data": "sha256:2"})


def test_fixed_places_stay_while_learned_ones_move() -> None:
    method, learned = LoCA(4), {step: LoCA(4).training_schedule(step, 240) for step in range(240)}
    assert {"loca_positions"} in [set(names) for names in learned.values()]
    with fixed_places():
        assert all(
            set(method.training_schedule(step, 240)) == {"loca_spectrum"} for step in learned
        )
    assert {step: method.training_schedule(step, 240) for step in learned} == learned


def test_the_table_and_the_picture_have_both_texts(tmp_path: Path) -> None:
    row = {"coefficients": 3, "bytes": 12, "before": {"eval_loss": 4.0}, "cpu_s": 1, "peak_mib": 1}
    rows = [
        {"what": "subjects: LoRA r=1", "after": {"eval_loss": 2.0, "right": 0.5}, **row},
        {"what": "subjects: LoRA r=1", "after": {"eval_loss": 3.0, "right": 0.7}, **row},
        {"what": "docstrings: LoRA r=1", "after": {"eval_loss": 1.0, "rouge_l": 0.25}, **row},
    ]
    gone = {"what": "subjects: VeRA r=256", "after": {}, "diverged": "the loss is not finite"}
    table = summed_up(training_real.STUDY, [*rows, gone])
    line = markdown(training_real.STUDY, table).splitlines()[2]
    subjects = "2.500 (2.000 - 3.000) | 0.600 (0.500 - 0.700)"
    assert line == f"| LoRA r=1 | 3 | 12 | {subjects} | 1.000 | 0.250 | 2/1 |"
    assert "| diverged | diverged |" in markdown(training_real.STUDY, table).splitlines()[3]
    draw(training_real.STUDY, table, tmp_path / "real.svg")
    assert "<svg" in (tmp_path / "real.svg").read_text()


def test_without_a_base_it_says_so() -> None:
    with pytest.raises(InvalidArgument, match="--base FOLDER"):
        training_real.main(["--only=docstrings: LoRA r=1"])


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"no folder of a model, it has no config\.json"):
        training_real.main([f"--base={tmp_path}", "--only=docstrings: LoRA r=1"])


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "base.gguf").write_bytes(b"nothing of a model")
    with pytest.raises(InvalidArgument, match=r"--base .*base\.gguf"):
        training_real.main([f"--base={tmp_path / 'base.gguf'}", "--only=docstrings: LoRA r=1"])
