"""The device's way with kernels: the same checks as on a GPU, by Triton's interpreter on a CPU."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import device_checks
import tiny
from adapters_core.gpu_kernels.running import Launch, interpreted, listening
from adapters_core.methods import FourierFT, LoCA
from server.adapters.modes import Mode
from server.adapters.residency import Entry
from server.engine.recordings import Recordings
from server_parts import CPU, FOURIERFT, LORA, QUERY_VALUE, Given, Served, torch_threads

pytest.importorskip("triton")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


class ServedByKernels(Served):
    """One whose banks have kernels; what a check compares it with has none."""

    def entry(self, adapter: Given, mode: Mode) -> Entry:
        with interpreted():
            return super().entry(adapter, mode)


def small_base(shape: str = "llama") -> nn.Module:
    """Return a base with as few rows of kernels as tell something: the interpreter is slow."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    return tiny.model(shape, **sizes, num_attention_heads=2, num_key_value_heads=1)


def served_by_kernels(
    device: torch.device,
    shape: str = "llama",
    dtype: torch.dtype = torch.float32,
    deterministic: bool = False,
) -> Served:
    model = small_base(shape).to(device, dtype)
    served = ServedByKernels(model, on_device=True, deterministic=deterministic)
    device_checks.graphs_of(served).recordings = Recordings(device_checks.RunsAgain())
    return served


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    adapters = [(FOURIERFT, QUERY_VALUE), (LoCA(n=40), QUERY_VALUE), (LORA, ("",))]
    changes = {
        "base_of": small_base,
        "served_on": served_by_kernels,
        "ADAPTERS": adapters,
        "PROMPT_LENGTHS": (3, 6, 4, 2, 1),
        "NEW_TOKENS": 2,
    }
    for name, value in changes.items():
        monkeypatch.setattr(device_checks, name, value)


@pytest.mark.parametrize("merged", [0, 1])
def test_prompts_and_tokens_of_several_banks_in_one_step(merged: int) -> None:
    launched: list[Launch] = []
    with listening(launched.append):
        device_checks.check_same_answers_as_the_cpu(CPU, "llama", merged)
    rows = {launch.grid[0] for launch in launched}
    assert min(rows) <= 8  # steps of single tokens
    assert max(rows) >= 12  # with prompts


@pytest.mark.slow
def test_the_bases_own_kernels_give_the_cpus_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def served_wholly(*args: Any, **options: Any) -> Served:
        with interpreted():
            return served_by_kernels(*args, **options)

    monkeypatch.setattr(device_checks, "served_on", served_wholly)
    launched: list[Launch] = []
    with listening(launched.append):
        device_checks.check_same_answers_as_the_cpu(CPU, "llama", 0)
    names = {launch.kernel.fn.__name__ for launch in launched}
    assert names >= {"attend", "combine_splits", "store", "rms_norm", "rotate", "gate"}


def test_bfloat16_stays_near_float32() -> None:
    device_checks.check_bfloat16_stays_near(CPU)


@pytest.mark.slow
def test_replays_equal_runs() -> None:
    device_checks.check_replays_equal_runs(CPU)


@pytest.mark.slow
def test_new_tokens_reach_a_replay() -> None:
    device_checks.check_new_tokens_reach_a_replay(CPU)


@pytest.mark.slow
@pytest.mark.parametrize("method", [FourierFT(n=40, seed=3), LoCA(n=40)], ids=repr)
def test_methods_give_the_cpus_numbers(method: Any) -> None:
    device_checks.check_every_method(CPU, (method, method))


@pytest.mark.slow
def test_deterministic_steps_give_the_same_bits() -> None:
    device_checks.check_deterministic(CPU)


@pytest.mark.slow
def test_memory_returns_to_where_it_was() -> None:
    device_checks.check_memory_returns(CPU)
