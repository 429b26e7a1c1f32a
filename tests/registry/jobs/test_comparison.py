"""One comparison decides what `latest` follows and what a job's answer says of its base."""

import math
from typing import Any

import pytest

from registry.jobs.comparison import is_better, is_better_than_base


def test_better_is_lower_for_losses_only() -> None:
    assert is_better("eval_loss", 1.0, 2.0)
    assert not is_better("perplexity", 2.0, 2.0)
    assert is_better("accuracy", 0.6, 0.5)
    assert not is_better("accuracy", math.nan, 0.5)
    assert is_better("eval_loss", 1.0, math.nan)


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"eval_loss": 1.0, "base": {"eval_loss": 2.0}}, True),
        ({"eval_loss": 2.0, "base": {"eval_loss": 2.0}}, False),
        ({"eval_loss": 3, "base": {"eval_loss": 2}}, False),
        ({"eval_loss": 1.0, "base": {"accuracy": 0.5}}, None),
        ({"eval_loss": 1.0, "base": None}, None),
        ({"base": {"eval_loss": 2.0}}, None),
        ({"eval_loss": "1.0", "base": {"eval_loss": 2.0}}, None),
        ({}, None),
    ],
)
def test_a_version_is_compared_with_its_base_where_both_losses_are_known(
    metrics: dict[str, Any], expected: bool | None
) -> None:
    assert is_better_than_base(metrics) is expected
