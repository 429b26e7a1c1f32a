"""Linears that see the same rows are computed together, onto updates, once that is known."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from adapters_core.contract.layer import Shape
from adapters_core.contract.method import Method, Rows
from adapters_core.gpu_kernels.running import Launch, listening
from adapters_core.layers.bank import EMPTY_SLOT
from adapters_core.layers.linear import AdaptedLinear, Switch
from adapters_core.layers.serving_plan import FactoredGroup, ServingPlan
from adapters_core.methods import FourierFT, FRoD, LoRA, VeRA, WaveletFT
from filled_bank import FilledBank

pytest.importorskip("triton")

SHAPES = {"a.q": Shape(64, 64), "a.k": Shape(32, 64), "a.v": Shape(32, 64), "a.o": Shape(96, 64)}
FOURIERFT = FourierFT(n=40, scale=300.0)
METHODS: list[Method] = [FOURIERFT, WaveletFT(n=40), LoRA(r=3), VeRA(r=20), FRoD(sparse_rate=0.02)]
SHARED, OWN = 0, 1
#: An attention's calls: linear and which rows it sees.
CALLS = [("a.q", SHARED), ("a.k", SHARED), ("a.v", SHARED), ("a.o", OWN)]


class Steps:
    """Runs steps over the same linears, and holds each answer against torch's way."""

    def __init__(self, *methods: Method) -> None:
        torch.manual_seed(0)
        self.filled = [FilledBank(method.of_layers(SHAPES), SHAPES) for method in methods]
        self.layers = {
            path: AdaptedLinear(nn.Linear(64, out, bias=path == "a.k"), path, Switch())
            for path, (out, _) in SHAPES.items()
        }

    @torch.inference_mode()
    def run(self, calls: Sequence[tuple[str, int]] = CALLS) -> list[Launch]:
        """Run one step and return its launches."""
        slots = [
            torch.tensor([filled.slots[2], EMPTY_SLOT, filled.slots[1]]) for filled in self.filled
        ]
        groups = [
            FactoredGroup(filled.kernels, Rows(own, 3), None)
            for filled, own in zip(self.filled, slots, strict=True)
        ]
        plan, rows = ServingPlan(factored=groups, num_rows=3), torch.randn(2, 3, 64)
        with listening((heard := []).append):
            answers = [plan.forward(self.layers[path], rows[which]) for path, which in calls]
        for (path, which), got in zip(calls, answers, strict=True):
            true = self.layers[path].base_rows(rows[which])
            for filled, own in zip(self.filled, slots, strict=True):
                update = filled.torch_way.apply(path, rows[which], Rows(own, 3))
                assert update is not None
                true = true + update
            assert (got - true).norm() <= 1e-5 * true.norm()
        return heard


def order_of(heard: Sequence[Launch]) -> list[tuple[str, bool | None]]:
    return [(launch.kernel.__name__, launch.args.get("ADDS")) for launch in heard]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_answers_are_right_before_and_after_it_is_known(method: Method) -> None:
    steps = Steps(method)
    first, second, third = (steps.run() for _ in range(3))
    assert order_of(second) == order_of(third)
    assert len(second) <= len(first)


def test_updates_of_the_others_are_ready_before_the_firsts() -> None:
    steps = Steps(FOURIERFT)
    added = ("synthesise", True)
    assert order_of(steps.run()) == [("analyse", None), *3 * [added], ("analyse", None), added]
    # k has a bias, which is there before; v has none.
    together = [("analyse", None), added, ("synthesise", False), added]
    assert order_of(steps.run()) == [*together, ("analyse", None), added]


def test_two_banks_are_added_to_one_product() -> None:
    steps = Steps(FOURIERFT, LoRA(r=3))
    for _ in range(2):
        steps.run()


@pytest.mark.parametrize("method", [FOURIERFT, LoRA(r=3)], ids=lambda method: method.name)
def test_other_calls_than_those_before_get_their_answers(method: Method) -> None:
    steps = Steps(method)
    q, k, v, o = CALLS
    for calls in (CALLS, [q, v, o], CALLS, [k, v], [q, k, v, v, o], CALLS):
        steps.run(calls)
    for calls in ([q, ("a.k", OWN), v], CALLS):
        steps.run(calls)
    [(group, _)] = {steps.filled[0].kernels.kernels_of("a.q") or (None, 0)}
    assert group is not None
    assert 1 not in group.runs.others_behind(0)


def test_a_linear_that_is_called_no_more_is_not_computed() -> None:
    steps, without = Steps(FOURIERFT), [call for call in CALLS if call[0] != "a.v"]
    for calls in (CALLS, without):
        steps.run(calls)
    assert len([launch for launch in steps.run(without) if "out" in launch.args]) == 3


def test_answers_are_tensors_of_their_own() -> None:
    steps = Steps(FOURIERFT)
    steps.run()
    plan = ServingPlan(
        factored=[
            FactoredGroup(steps.filled[0].kernels, Rows(torch.zeros(3, dtype=torch.int64), 3), None)
        ]
    )
    x = torch.randn(3, 64)
    with torch.inference_mode():
        answers = [plan.forward(steps.layers[path], x) for path in ("a.q", "a.k", "a.v", "a.v")]
    storages = [answer.untyped_storage().data_ptr() for answer in answers]
    assert all(a != b for a, b in pairwise(storages))
    assert torch.equal(answers[2], answers[3]) or bool(Tensor.allclose(answers[2], answers[3]))
