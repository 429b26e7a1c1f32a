"""What bfloat16 costs in the answer, on a tiny base; numerics.py measures a larger one."""

from collections.abc import Iterator

import pytest
import torch

import tiny
from adapters_core.methods import FourierFT
from bench.programs.numerics import Side, divergences, measure, rounded
from server_parts import prompt_of, torch_threads

#: Nats a token. Measured on a CPU: 1.5e-4 on average, 5e-4 at most, with and without adapters.
MEAN, WORST = 6e-4, 3e-3
PROMPTS = [list(prompt_of(24, seed)) for seed in range(6)]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1), torch.inference_mode():
        yield


def test_bfloat16_moves_the_answers_little_with_and_without_adapters() -> None:
    rows = measure(tiny.model(), PROMPTS)
    assert [row["what"] for row in rows] == [
        "base",
        "fourierft qv factored",
        "fourierft qv merged",
        "lora qv factored",
        "lora qv merged",
    ]
    for row in rows:
        assert row["tokens"] == 6 * 12
        assert 0 < row["mean"] < MEAN, row
        assert row["mean"] <= row["max"] < WORST, row
    # An adapter costs no more than a few times what the base's own rounding does.
    assert max(row["mean"] for row in rows) < 3 * rows[0]["mean"]


def test_float32_against_itself_is_nothing_and_a_missing_adapter_is_seen() -> None:
    high, low = (Side(model, 10) for model in rounded(tiny.model()))
    assert divergences(high, high, PROMPTS, (None, None))["max"] == 0
    lease = high.lease(high.adapter(FourierFT(n=1000), seed=1), "factored")
    missing = divergences(high, low, PROMPTS, (lease, None))
    assert missing["mean"] > 10 * MEAN
