"""Fused modules of real types of bases, by Triton's interpreter, against transformers' own."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama import modeling_llama
from transformers.models.qwen3.modeling_qwen3 import Qwen3MLP

import tiny
from adapters_core.gpu_kernels.running import Launch, listening
from server_parts import torch_threads

pytest.importorskip("triton")

from server.gpu_kernels import fused_modules, fused_rotation
from server.gpu_kernels.fused_modules import Fusion, fuse

#: Base -> norms of its two layers and of its end. All of them, two gates and two rotations are a
#: launch each.
BASES = {"llama": 5, "mistral": 5, "qwen2": 5, "qwen3": 9, "gemma2": 9, "phi3": 5}
EPS = torch.finfo(torch.float32).eps
IDS = torch.arange(5)[None]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


@torch.inference_mode()
def logits(model: nn.Module) -> Tensor:
    out: Tensor = model(IDS, use_cache=False).logits
    return out


@pytest.mark.parametrize("shape", BASES)
def test_a_base_computes_the_same_by_kernels(shape: str) -> None:
    model = tiny.model(shape)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            nn.init.normal_(parameter, 0.5)
    before, heard = logits(model), list[Launch]()
    fusion = fuse(model)
    with listening(heard.append):
        after = logits(model)
    fusion.undo()
    assert fusion.replaced == {"norms": BASES[shape], "gates": 2, "rotations": 2}
    assert len(heard) == BASES[shape] + 4
    assert (after - before).norm() <= 64 * EPS * before.norm()
    with listening(heard.append):
        assert torch.equal(logits(model), before)
    assert len(heard) == BASES[shape] + 4
    fusion.undo()


def test_the_model_is_as_it_was_afterwards() -> None:
    model: Any = tiny.model("llama")
    model.model.norm.forward = own = model.model.norm.forward
    state = [dict(vars(module)) for module in model.modules()]
    fusion = fuse(model)
    assert model.model.norm.forward is not own
    fusion.undo()
    assert [dict(vars(module)) for module in model.modules()] == state


def test_another_model_of_the_type_is_untouched() -> None:
    model, other, heard = tiny.model("llama"), tiny.model("llama"), list[Launch]()
    fuse(model)
    with listening(heard.append):
        before = logits(other)
    assert not heard
    assert (logits(model) - before).norm() <= 64 * EPS * before.norm()


class WrongNorm(GemmaRMSNorm):
    """Has a known name and computes something else."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.1 * super().forward(x)


class WrongMLP(Qwen3MLP):
    """As above."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


def wrong_rotation(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    return q * cos, k * cos


def renamed(kind: type, name: str) -> type:
    made = type(name, (kind,), {})
    made.__module__ = "transformers.models.x"
    return made


def mlp(activation: str = "silu") -> Qwen3MLP:
    made = Qwen3MLP(tiny.model("qwen3", num_hidden_layers=1).config).requires_grad_(False)
    made.act_fn = ACT2FN[activation]
    return made


class Holder(nn.Module):
    """A model of one module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def test_what_computes_something_else_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = mlp()
    wrong.__class__ = renamed(WrongMLP, "Qwen3MLP")
    norm = renamed(WrongNorm, "GemmaRMSNorm")(8)
    for module in (wrong, norm, WrongNorm(8), nn.RMSNorm(8), mlp("relu"), mlp("gelu")):
        assert fuse(Holder(module)) == Fusion()
        assert "forward" not in vars(module)
    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", wrong_rotation)
    assert fuse(tiny.model("llama")).replaced == {"norms": 5, "gates": 2}


def test_what_does_not_run_here_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any) -> Tensor:
        raise RuntimeError("no compiler")

    for owner, name in (
        (fused_modules, "normed"),
        (fused_modules, "gated"),
        (fused_rotation, "rotated"),
    ):
        monkeypatch.setattr(owner, name, fails)
    assert fuse(tiny.model("llama")) == Fusion()


def test_gradients_and_other_types_go_the_plain_way() -> None:
    model: Any = tiny.model("llama")
    fuse(model)
    heard = list[Launch]()
    with listening(heard.append):
        model(IDS).logits.sum().backward()
        with torch.inference_mode():
            rows = torch.ones(1, 96, dtype=torch.bfloat16)
            assert model.model.norm(rows).dtype == torch.float32
    assert not heard


def test_a_gate_may_be_gelu() -> None:
    module = mlp("gelu_pytorch_tanh")
    x = torch.randn(2, module.gate_proj.in_features, generator=torch.Generator().manual_seed(1))
    fusion = fuse(Holder(module))
    with torch.inference_mode():
        got = module(x)
    expected = module.down_proj(F.gelu(module.gate_proj(x), approximate="tanh") * module.up_proj(x))
    assert fusion.replaced == {"gates": 1}
    assert (got - expected).norm() <= 32 * EPS * expected.norm()


def test_a_base_without_values_is_taken_by_its_types_alone() -> None:
    model: Any = tiny.model("llama").to("meta")
    heard = list[Launch]()
    assert fuse(model).replaced == {"norms": 5, "gates": 2, "rotations": 2}
    with torch.inference_mode(), listening(heard.append):
        model.model.layers[0].mlp(torch.empty(1, 7, model.config.hidden_size, device="meta"))
    assert Counter(one.kernel.fn.__name__ for one in heard) == {"gate": 1}
