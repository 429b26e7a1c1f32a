"""How many adapters a new bank has room for: on a GPU growth ends recorded steps."""

import pytest

from adapters_core.base.spec import Shape
from adapters_core.layers.bank import Layout
from adapters_core.methods import FourierFT
from server.adapters.memory import _first_slots


@pytest.mark.parametrize(
    ("n", "expected"), [(10, 512), (20_000, (16 << 20) // 80_000), (5_000_000, 4)]
)
def test_a_banks_first_bytes_are_bounded(n: int, expected: int) -> None:
    shapes = {"q": Shape(4096, 4096)}
    layout = Layout.of(FourierFT(n=n).of_layers(shapes), shapes)
    assert layout.width == n
    assert _first_slots(layout, "cuda") == expected
    assert _first_slots(layout, "cpu") == 4
