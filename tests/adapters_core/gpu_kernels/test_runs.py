"""Linears beside each other that see other rows than their neighbours."""

import pytest
import torch
from torch import Tensor, nn

from adapters_core.contract.kernel_group import Runs
from adapters_core.contract.layer import Shape
from adapters_core.contract.method import Method, Rows
from adapters_core.gpu_kernels.running import Launch, listening
from adapters_core.layers.linear import AdaptedLinear, Switch
from adapters_core.layers.serving_plan import FactoredGroup
from adapters_core.methods import FourierFT, LoRA, WaveletFT
from filled_bank import FilledBank

pytest.importorskip("triton")

#: As an attention has them: the last one sees what the others' answers were made into.
SHAPES = {"a.q": Shape(64, 64), "a.k": Shape(32, 64), "a.v": Shape(32, 64), "a.o": Shape(96, 64)}
METHODS: list[Method] = [FourierFT(n=40, scale=300.0), WaveletFT(n=40), LoRA(r=3)]


def step(filled: FilledBank, seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Return path -> rows and their updates, as one forward pass has them."""
    rows, found = Rows(torch.tensor([filled.slots[1], filled.slots[2]]), 2), {}
    group = FactoredGroup(filled.kernels, rows, None)
    generator = torch.Generator().manual_seed(seed)
    shared, own = (torch.randn(2, 64, generator=generator) for _ in range(2))
    for path, shape in SHAPES.items():
        x = own if path == "a.o" else shared
        layer = AdaptedLinear(nn.Linear(64, shape.out), path, Switch())
        group.begin(layer, x)
        found[path] = x, group.add_to(torch.zeros(2, shape.out), layer, x)
    return found


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_what_is_shared_is_learned_in_the_first_step(method: Method) -> None:
    filled = FilledBank(method.of_layers(SHAPES), SHAPES)
    heard: list[Launch] = []
    for seed in range(2):
        heard.clear()
        with listening(heard.append):
            answers = step(filled, seed)
        for path, (x, got) in answers.items():
            true = filled.torch_way.apply(path, x, Rows(torch.tensor(filled.slots[1:]), 2))
            assert true is not None
            assert (got - true).norm() <= 1e-5 * true.norm()
    group, _ = filled.kernels.kernels_of("a.q") or (None, 0)
    assert group is not None
    assert group.runs.of(1) == range(3)
    assert group.runs.of(3) == range(3, 4)
    if isinstance(method, LoRA):  # nine ranks, then three; four a program
        narrowed = [one.grid for one in heard if one.kernel.__name__ == "narrow"]
        assert narrowed == [(2, 3), (2, 1)]


def test_runs_are_split_where_they_are_told_to() -> None:
    runs = Runs(5)
    assert runs.of(4) == range(5)
    runs.split(3)
    runs.split(1)
    runs.split(3)
    assert [runs.of(number) for number in range(5)] == [
        *(range(1), range(1, 3), range(1, 3), range(3, 5), range(3, 5))
    ]
