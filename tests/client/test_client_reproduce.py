"""reproduce at the command line: the same job once more, and whether the same bytes came out."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from typer.testing import Result

from .fake_overtone import State

Run = Callable[..., Result]


def trained(state: State, data: Path, digest: str) -> None:
    """A version that a job has made of the file, as its record says."""
    content = data.read_bytes()
    file = state.training.add_file(data.name, content)
    whole = hashlib.sha256(hashlib.sha256(content).digest()).hexdigest()
    spec: dict[str, Any] = {"base_name": "tiny", "training_file": file["id"], "seed": 5}
    spec |= {"method": "loca", "method_config": {"n_frequency": 4}, "task": "causal_lm"}
    spec |= {"hyperparameters": {"n_epochs": 2, "max_steps": None}, "validation_file": None}
    made = {"spec": spec, "data_digest": f"sha256:{whole}"}
    state.add("poet", metadata={"training": made}, digest=digest)


def test_reproduce_files_the_same_job_and_compares(run: Run, state: State, data: Path) -> None:
    trained(state, data, state.training.digest)
    state.adapters["poet-again-000000"] = []
    done = run("reproduce", "poet@1", "--keep")
    assert done.exit_code == 0, done.output
    assert "poet@1: trained again, the same bytes" in done.stdout
    (body,) = state.training.bodies
    assert body["adapter"].pop("name").startswith("poet-again-")
    assert body == {
        "model": "tiny",
        "training_file": next(iter(state.training.files)),
        "seed": 5,
        "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
        "adapter": {"method": "loca", "config": {"n_frequency": 4}, "task": "causal_lm"},
    }


def test_reproduce_says_when_other_bytes_come_out(run: Run, state: State, data: Path) -> None:
    trained(state, data, "sha256:" + "2" * 64)
    done = run("reproduce", "poet", "--keep", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["same"] is False


def test_reproduce_takes_the_file_again_if_it_is_the_same(
    run: Run, state: State, data: Path
) -> None:
    trained(state, data, state.training.digest)
    state.training.files.clear()
    refused = run("reproduce", "poet@1", "--keep")
    assert refused.exit_code == 2
    assert "--data" in refused.stderr
    assert run("reproduce", "poet@1", "--keep", "--data", data).exit_code == 0
    data.write_text('{"text": "b"}\n')
    other = run("reproduce", "poet@1", "--keep", "--data", data)
    assert other.exit_code == 2
    assert "these are other data" in other.stderr


def test_reproduce_refuses_a_validation_file_where_there_was_none(
    run: Run, state: State, data: Path
) -> None:
    trained(state, data, state.training.digest)
    before = set(state.training.files)
    done = run("reproduce", "poet@1", "--keep", "--validation", data)
    assert done.exit_code == 2
    assert "poet@1 was trained without a validation file" in done.stderr
    assert set(state.training.files) == before


def test_what_was_uploaded_cannot_be_reproduced(run: Run, state: State) -> None:
    state.add("poet")
    assert "nothing to repeat" in run("reproduce", "poet@1").stderr
    assert run("reproduce", "poet@7").exit_code == 2
    assert run("reproduce", "nobody").exit_code == 1


def test_reproduce_that_is_refused_takes_its_file_back(run: Run, state: State, data: Path) -> None:
    trained(state, data, state.training.digest)
    before = set(state.training.files)
    data.write_text('{"text": "b"}\n')
    assert run("reproduce", "poet@1", "--data", data).exit_code == 2
    assert set(state.training.files) == before
