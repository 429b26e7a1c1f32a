"""What is kept of a base's weights: read where whole and theirs, made anew where it is not."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adapters_core.base import spec as base_spec
from adapters_core.base.derived_files import DerivedFiles
from adapters_core.base.spec import BaseSpec, BaseWeights
from adapters_core.contract.layer import Derived, Shape, Weights
from adapters_core.errors import BasisPending

MADE: list[str] = []


def doubled(base: Weights, path: str, report: Callable[[float], None]) -> dict[str, Tensor]:
    MADE.append(path)
    return {"twice": 2 * base.weight(path), "one": torch.ones(1)}


DOUBLED = Derived("doubled-a", ("a",), doubled, "a", 1)


def weights_with(folder: Path | None, weight: Tensor) -> BaseWeights:
    spec = BaseSpec("toy", "sha256:toy", {"a": Shape(*weight.shape)})
    return BaseWeights(spec, {"a": weight}.__getitem__, folder)


@pytest.fixture(autouse=True)
def _made() -> None:
    MADE.clear()


def check(folder: Path, weight: Tensor, times: int) -> None:
    """Read through a new process's eyes; so often has it been made by now."""
    kept = weights_with(folder, weight).kept(DOUBLED)
    assert torch.equal(kept["twice"], 2 * weight)
    assert torch.equal(kept["one"], torch.ones(1))
    assert len(MADE) == times


def the_file(folder: Path) -> Path:
    return folder / "toy" / "doubled-a.safetensors"


def test_it_is_made_once_and_read_afterwards(tmp_path: Path) -> None:
    for _ in range(3):
        check(tmp_path, torch.rand(3, 4, generator=torch.Generator().manual_seed(0)), 1)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("at", [0, 9, 0.5, -1])
def test_a_damaged_file_is_made_anew(at: float, tmp_path: Path) -> None:
    weight = torch.rand(30, 40)
    check(tmp_path, weight, 1)
    data = bytearray(the_file(tmp_path).read_bytes())
    data[int(at * len(data)) if isinstance(at, float) else at] ^= 1
    the_file(tmp_path).write_bytes(data)
    check(tmp_path, weight, 2)
    check(tmp_path, weight, 2)


@pytest.mark.parametrize("size", [0, 7, 200])
def test_a_file_that_was_cut_off_is_made_anew(size: int, tmp_path: Path) -> None:
    weight = torch.rand(30, 40)
    check(tmp_path, weight, 1)
    the_file(tmp_path).write_bytes(the_file(tmp_path).read_bytes()[:size])
    check(tmp_path, weight, 2)


def test_a_single_changed_number_of_the_weights_counts(tmp_path: Path) -> None:
    weight = torch.rand(100, 100)
    check(tmp_path, weight, 1)
    changed = weight.clone()
    changed[3, 5] = torch.nextafter(changed[3, 5], torch.tensor(2.0))
    check(tmp_path, changed, 2)


def test_the_dtype_in_which_the_weights_are_held_does_not_count(tmp_path: Path) -> None:
    weight = torch.rand(8, 8).bfloat16()
    check(tmp_path, weight.float(), 1)
    weights_with(tmp_path, weight).kept(DOUBLED)
    assert len(MADE) == 1


def test_a_file_that_makes_nothing_leaves_nothing(tmp_path: Path) -> None:
    def fails() -> dict[str, Tensor]:
        raise ValueError("no")

    files = DerivedFiles(tmp_path)
    with pytest.raises(ValueError, match="no"):
        files.read_or_made("x", "sha256:", fails)
    assert files.read("x", "sha256:") is None
    assert files.read_or_made("x", "sha256:", lambda: {"a": torch.ones(1)})["a"] == 1


def test_one_that_finds_another_at_work_waits_and_reads(tmp_path: Path) -> None:
    """Two openings of a lock exclude one another in one process as in two."""
    begun, going_on = threading.Event(), threading.Event()
    made = []

    def slow() -> dict[str, Tensor]:
        begun.set()
        assert going_on.wait(10)
        made.append("slow")
        return {"a": torch.ones(1)}

    def quick() -> dict[str, Tensor]:
        made.append("quick")
        return {"a": torch.zeros(1)}

    first = threading.Thread(target=DerivedFiles(tmp_path).read_or_made, args=("x", "o", slow))
    first.start()
    assert begun.wait(10)
    found: list[dict[str, Tensor]] = []
    second = threading.Thread(
        target=lambda: found.append(DerivedFiles(tmp_path).read_or_made("x", "o", quick))
    )
    second.start()
    going_on.set()
    for thread in (first, second):
        thread.join(10)
    assert made == ["slow"]
    assert found[0]["a"] == 1


def test_what_is_not_light_is_left_to_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(derived: Derived, weights: BaseWeights) -> None:
        raise BasisPending(derived.name)

    spec, weight = BaseSpec("toy", "sha256:toy", {"a": Shape(2, 2)}), torch.rand(2, 2)
    weights = BaseWeights(spec, {"a": weight}.__getitem__, tmp_path, elsewhere)  # type: ignore[arg-type]
    weights.kept(DOUBLED)
    the_file(tmp_path).unlink()
    monkeypatch.setattr(base_spec, "LIGHT", 0)
    with pytest.raises(BasisPending, match="doubled-a"):
        weights.kept(DOUBLED)
    check(tmp_path, weight, 2)
    assert torch.equal(weights.kept(DOUBLED)["twice"], 2 * weight)
