"""Decoder layers that add updates with the residual, by Triton's interpreter."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from adapters_core.contract.rows import Rows
from adapters_core.gpu_kernels.running import Launch, listening
from adapters_core.layers.bank import EMPTY_SLOT, Bank
from adapters_core.layers.inject import Injection, inject
from adapters_core.layers.serving_plan import FactoredGroup, MergedGroup, ServingPlan
from adapters_core.methods import LoRA
from filled_bank import FilledBank
from server_parts import torch_threads

pytest.importorskip("triton")

from server.gpu_kernels.fused_modules import fuse
from server.gpu_kernels.rows import summed

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
IDS = torch.arange(5)[None]
EPS = torch.finfo(torch.float32).eps


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


class Adapted:
    """A small base and adapters on all its linears, with and without kernels."""

    def __init__(self, shape: str) -> None:
        self.model = tiny.model(shape, **SIZES)
        self.injection: Injection = inject(self.model)
        shapes = {path: linear.shape for path, linear in self.injection.linears.items()}
        self.filled = FilledBank(LoRA(r=2, alpha=2.0).of_layers(shapes), shapes)
        _, one, other = self.filled.slots
        self.slots = torch.tensor([one, other, EMPTY_SLOT, one, other])

    def plan(self, bank: Bank, **options: Any) -> ServingPlan:
        group = FactoredGroup(bank, Rows(self.slots, 5), None)
        return ServingPlan(factored=[group], num_rows=5, **options)

    @torch.inference_mode()
    def logits(self, plan: ServingPlan | None) -> Tensor:
        self.injection.switch.plan = plan
        out: Tensor = self.model(IDS, use_cache=False).logits
        self.injection.switch.plan = None
        return out


@pytest.mark.parametrize("shape", ["llama", "mistral", "qwen2", "qwen3"])
def test_updates_reach_the_residual(shape: str) -> None:
    adapted = Adapted(shape)
    true, base = adapted.logits(adapted.plan(adapted.filled.torch_way)), adapted.logits(None)
    fusion, heard = fuse(adapted.model), list[Launch]()
    assert fusion.replaced["sums"] == 2
    for _ in range(2):
        heard.clear()
        with listening(heard.append):
            got = adapted.logits(adapted.plan(adapted.filled.kernels))
        assert (got - true).norm() <= 256 * EPS * true.norm()
        sums = [launch for launch in heard if launch.kernel.__name__ == "add_update"]
        assert len(sums) == 4
    assert (got - base).norm() >= 0.01 * base.norm()
    fusion.undo()
    assert torch.equal(adapted.logits(None), base)


def test_rows_that_go_other_ways_keep_their_updates() -> None:
    adapted = Adapted("llama")
    path = "model.layers.0.self_attn.o_proj"
    weights = {path: 1.5 * adapted.injection.linears[path].golden()}
    merged = [
        MergedGroup(weights, None, torch.tensor([[False], [False], [True], [False], [False]]))
    ]
    true = adapted.logits(adapted.plan(adapted.filled.torch_way, merged=merged))
    fuse(adapted.model)
    got = adapted.logits(adapted.plan(adapted.filled.kernels, merged=merged))
    assert (got - true).norm() <= 256 * EPS * true.norm()


def test_nothing_is_asked_for_after_a_failure() -> None:
    adapted = Adapted("llama")
    fuse(adapted.model)
    with pytest.raises(Exception, match="rows"):
        adapted.logits(
            ServingPlan(factored=adapted.plan(adapted.filled.kernels).factored, num_rows=4)
        )
    asked = [linear.apart for linear in adapted.injection.linears.values()]
    assert not any(apart is None or apart.is_asked_for for apart in asked)


def test_only_layers_that_add_as_llamas_do_are_replaced() -> None:
    for shape in ("gemma2", "phi3"):
        model = tiny.model(shape)
        inject(model)
        assert "sums" not in fuse(model).replaced


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sum_of_three_is_rounded_once(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    residual, answer = (torch.randn(1, 3, 700).to(dtype) for _ in range(2))
    update = (0.01 * torch.randn(3, 700)).to(dtype)
    got = summed(100 * residual, answer, update)
    exact = (100 * residual).double() + answer.double() + update.double()
    assert got.shape == residual.shape
    assert got.dtype == dtype
    # The interpreter cuts numbers off where a GPU rounds them.
    assert ((got.double() - exact).abs() <= 2 * torch.finfo(dtype).eps * exact.abs() + 1e-5).all()
