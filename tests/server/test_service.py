"""What follows the base's device where no setting says otherwise."""

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from server.service import _mode
from server.settings import Settings


def base_on(device: str) -> Any:
    return SimpleNamespace(model=nn.Linear(2, 2, device=device))


@pytest.mark.parametrize(
    ("given", "on_a_cpu", "elsewhere"),
    [(None, "auto", "factored"), ("auto", "auto", "auto"), ("merged", "merged", "merged")],
)
def test_the_mode_is_factored_beside_a_cpu(given: Any, on_a_cpu: str, elsewhere: str) -> None:
    settings = Settings(base="b", mode=given)
    assert _mode(settings, base_on("cpu")) == on_a_cpu
    assert _mode(settings, base_on("meta")) == elsewhere
