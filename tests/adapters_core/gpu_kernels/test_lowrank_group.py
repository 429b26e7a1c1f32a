"""LoRA's kernels: ranks and widths of any kind, neighbours of one slot, banks of any precision."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from adapters_core.contract.layer import Shape
from adapters_core.layers.bank import EMPTY_SLOT
from adapters_core.methods import LoRA
from filled_bank import FilledBank

pytest.importorskip("triton")

#: No width is a multiple of what a program takes; no rank but one is a power of two.
SHAPES = {"a.q": Shape(300, 77), "a.k": Shape(33, 77), "a.v": Shape(65, 77)}
METHODS = {"a.q": LoRA(r=3), "a.k": LoRA(r=1), "a.v": LoRA(r=19, alpha=30.0)}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def filled() -> FilledBank:
    return FilledBank(METHODS, SHAPES)


def slots_of(filled: FilledBank) -> Tensor:
    """A prompt over a block of rows and a part of one, two rows alone, one without adapter."""
    _, one, other = filled.slots
    return torch.tensor(17 * [one] + [EMPTY_SLOT, other, one])


def updates(filled: FilledBank, x: Tensor, slots: Tensor) -> dict[str, Tensor]:
    return {
        path: filled.update(x, slots, path, torch.zeros(len(x), shape.out))
        for path, shape in SHAPES.items()
    }


def test_neighbours_of_one_slot_share_their_factors(filled: FilledBank) -> None:
    slots = slots_of(filled)
    x = torch.randn(len(slots), 77, generator=torch.Generator().manual_seed(5))
    for path, got in updates(filled, x, slots).items():
        exact = filled.exact(x, slots, path)
        assert (got - exact).norm(dim=1).le(1e-5 * exact.norm(dim=1)).all()


def test_a_row_alone_has_the_bits_it_has_beside_others(filled: FilledBank) -> None:
    """Where no block of rows is of one slot, each row is summed in one and the same order."""
    slots = torch.tensor([filled.slots[1], filled.slots[2]] * 3)
    x = torch.randn(len(slots), 77, generator=torch.Generator().manual_seed(6))
    beside = updates(filled, x, slots)
    alone = updates(filled, x[5:6], slots[5:6])
    for path, got in alone.items():
        assert torch.equal(got[0], beside[path][5])


@pytest.mark.slow
@pytest.mark.parametrize("rank", [16, 250])
def test_layers_of_a_large_base(rank: int) -> None:
    shapes = {"a.q": Shape(4096, 4096), "a.v": Shape(1024, 4096)}
    filled = FilledBank(dict.fromkeys(shapes, LoRA(r=rank)), shapes)
    slots = torch.tensor([filled.slots[1], EMPTY_SLOT, filled.slots[2]])
    x = torch.randn(3, 4096, generator=torch.Generator().manual_seed(7))
    for path, shape in shapes.items():
        got = filled.update(x, slots, path, torch.zeros(3, shape.out))
        for row, slot in ((0, 0), (2, 1)):
            layer = {name: part.double() for name, part in filled.adapters[slot][path].items()}
            hidden = layer["lora_A.weight"] @ x[row].double()
            exact = filled.methods[path].scale * (layer["lora_B.weight"] @ hidden)
            assert (got[row] - exact).norm() <= 1e-5 * exact.norm()
