"""The checks that tests/gpu makes on a GPU, made on the CPU: the same functions and way."""

from collections.abc import Iterator

import pytest
import torch

import device_checks
from adapters_core.methods import FourierFT, LoCA, LoRA, WaveletFT
from server_parts import CPU, torch_threads


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


@pytest.mark.parametrize("merged", [0, 2])
def test_answers_are_the_cpus(merged: int) -> None:
    device_checks.check_same_answers_as_the_cpu(CPU, "llama", merged)


def test_bfloat16_stays_near_float32() -> None:
    device_checks.check_bfloat16_stays_near(CPU)


def test_replays_equal_runs() -> None:
    device_checks.check_replays_equal_runs(CPU)


def test_steps_are_recorded_at_start() -> None:
    device_checks.check_steps_recorded_at_start(CPU)


def test_a_failed_recording_ends_recording() -> None:
    device_checks.check_a_failed_recording_ends_recording(CPU)


def test_new_tokens_reach_a_replay() -> None:
    device_checks.check_new_tokens_reach_a_replay(CPU)


def test_methods_give_the_cpus_numbers() -> None:
    methods = (FourierFT(n=300, seed=3), LoRA(r=8), LoCA(n=300), WaveletFT(n=60))
    device_checks.check_every_method(CPU, methods)


def test_the_canary_passes() -> None:
    device_checks.check_canary(CPU)


def test_seeded_draws_are_the_cpus() -> None:
    device_checks.check_sampler(CPU)


def test_deterministic_steps_give_the_same_bits() -> None:
    before = torch.are_deterministic_algorithms_enabled()
    device_checks.check_deterministic(CPU)
    assert torch.are_deterministic_algorithms_enabled() == before  # a CPU needs no setting


def test_memory_returns_to_where_it_was() -> None:
    device_checks.check_memory_returns(CPU)


def test_there_is_no_paged_kernel_for_a_cpu() -> None:
    assert not device_checks.check_paged_kernel(CPU)
