"""What the GPU's program holds the base's kernels against, by Triton's interpreter."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from adapters_core.gpu_kernels.running import interpreted
from bench.programs import gpu_base_kernels
from bench.programs.gpu_base_kernels import (
    BASES,
    Attention,
    Heads,
    attention_times,
    base_errors,
    launches,
)
from server_parts import CPU, torch_threads

pytest.importorskip("triton")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


@pytest.mark.parametrize(
    "heads",
    [Heads(4, 2, 16), Heads(2, 2, 16, window=40, softcap=3.0), Heads(4, 1, 8, has_sinks=True)],
    ids=["plain", "window, cap", "sinks"],
)
def test_both_ways_attend_alike(heads: Heads) -> None:
    made = Attention.of(heads, 2, 10, CPU, torch.float32)
    got, true = made.by_kernel(), made.gathered()
    assert (got - true).norm() <= 1e-5 * true.norm()
    changed = replace(made, values=made.values.roll(1, 0)).by_kernel()
    assert (changed - true).norm() > 0.1 * true.norm()


@pytest.mark.slow
def test_every_kernel_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: heads for name, heads in BASES.items() if heads.kv_heads == 1}
    monkeypatch.setattr(gpu_base_kernels, "BASES", few)  # the interpreter is slow
    with interpreted():
        found = base_errors(CPU, torch.float32)
    assert len(found) == len(few) + 3
    assert all(error < 1e-5 for error in found.values())


def test_nothing_is_told_where_no_kernel_runs() -> None:
    assert base_errors(CPU, torch.float32) == {"error": None}
    assert attention_times(CPU, torch.float32, 64, 1) == {"error": None}


def test_launches_are_of_many_shapes() -> None:
    heard = launches()
    assert len(heard) > 100
    names = {one.kernel.fn.__name__ for one in heard}
    assert names == {"attend", "combine_splits", "rms_norm", "rotate", "gate", "store"}
