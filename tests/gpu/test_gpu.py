"""On a real GPU: the CPU's numbers, recordings that equal runs, and memory that returns."""

from collections.abc import Iterator

import pytest
import torch

import device_checks
import tiny
from adapters_core.methods import (
    C3A,
    CLoRA,
    DoRA,
    FourierFT,
    FRoD,
    LoCA,
    LoRA,
    SHiRA,
    TinyLoRA,
    VeRA,
    WaveletFT,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here"),
    # Libraries of a GPU's image warn of much that is not ours.
    pytest.mark.filterwarnings("default"),
]
GPU = torch.device("cuda")


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("merged", [0, 2])
@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_answers_are_the_cpus(shape: str, merged: int) -> None:
    device_checks.check_same_answers_as_the_cpu(GPU, shape, merged)


def test_bfloat16_stays_near_float32() -> None:
    device_checks.check_bfloat16_stays_near(GPU)


def test_replays_equal_runs() -> None:
    device_checks.check_replays_equal_runs(GPU)


def test_steps_are_recorded_at_start() -> None:
    device_checks.check_steps_recorded_at_start(GPU)


def test_new_tokens_reach_a_replay() -> None:
    device_checks.check_new_tokens_reach_a_replay(GPU)


@pytest.mark.parametrize(
    "method",
    [
        FourierFT(n=300, seed=3),
        LoRA(r=8, alpha=4.0),
        C3A(block_size=16),
        CLoRA(r=3, num_spaces=2),
        DoRA(r=3),
        FRoD(sparse_rate=0.02),
        LoCA(n=300),
        SHiRA(r=2),
        TinyLoRA(r=5, u=6, tying=0.5),
        VeRA(r=5),
        WaveletFT(n=60),
        WaveletFT(n=300, num_levels=2),
    ],
    ids=lambda method: method.name,
)
def test_every_method_gives_the_cpus_numbers(method: object) -> None:
    device_checks.check_every_method(GPU, (method,))  # type: ignore[arg-type]


def test_the_canary_passes() -> None:
    device_checks.check_canary(GPU)


def test_seeded_draws_are_the_cpus() -> None:
    device_checks.check_sampler(GPU)


def test_deterministic_steps_give_the_same_bits() -> None:
    device_checks.check_deterministic(GPU)


def test_memory_returns_to_where_it_was() -> None:
    device_checks.check_memory_returns(GPU)


def test_the_paged_kernel_agrees_where_there_is_one() -> None:
    if not device_checks.check_paged_kernel(GPU):
        pytest.skip("torch's paged attention is not for this device; keys are gathered")


def test_a_failed_recording_ends_recording() -> None:
    """The last one: what torch's allocator is like afterwards is not known."""
    device_checks.check_a_failed_recording_ends_recording(GPU)
