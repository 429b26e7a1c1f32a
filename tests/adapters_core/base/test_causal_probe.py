"""A linear of a causal LM is a target only if it sees the rows of a step, one a token, in order."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tiny
from adapters_core.base.causal_probe import with_causal_targets
from adapters_core.base.spec import BaseSpec, adaptable, spec_of


def probed(model: nn.Module, max_length: int = tiny.MAX_LENGTH) -> BaseSpec:
    return with_causal_targets(spec_of(model, "tiny"), model, max_length)


@pytest.mark.parametrize("shape", tiny.OWN_SHAPES)
def test_a_linear_of_a_class_of_its_own_is_a_target_where_it_is_called(shape: str) -> None:
    model = tiny.model(shape)
    spec = probed(model)
    assert spec.left_out == {}
    assert spec.targets


@pytest.mark.parametrize("shape", tiny.SHAPES)
@pytest.mark.parametrize("max_length", [5, tiny.MAX_LENGTH])
def test_every_linear_of_a_usual_base_is_a_target(shape: str, max_length: int) -> None:
    model = tiny.model(shape)
    spec = probed(model, max_length)
    assert list(spec.targets) == [path for path, _ in adaptable(model)]
    assert not spec.left_out
    assert not spec.kept


def test_a_linear_behind_the_choice_of_rows_is_a_target_of_those_rows() -> None:
    spec = probed(tiny.model("modernbert-decoder"))
    assert spec.kept == {"lm_head.dense"}
    assert "lm_head.dense" in spec.targets
    assert not spec.left_out


class Routed(nn.Module):
    """Experts, each of which sees the rows of its own tokens only."""

    def __init__(self, mlp: Any) -> None:
        super().__init__()
        width = mlp.gate_proj.in_features
        self.experts = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.idle = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            mine = (x.sum(-1) > 0) == bool(number)
            out[mine] = expert(x[mine])
        return out


class Sorted(nn.Module):
    """A linear that sees a row for each token, in another order."""

    def __init__(self, mlp: Any) -> None:
        super().__init__()
        self.dense = nn.Linear(mlp.gate_proj.in_features, mlp.gate_proj.in_features)

    def forward(self, x: Tensor) -> Tensor:
        order = x.sum(-1).argsort(dim=1)[..., None].expand_as(x)
        return torch.empty_like(x).scatter(1, order, self.dense(x.gather(1, order)))


class OfPositions(nn.Module):
    """A linear that sees a table of positions, the same for every text."""

    def __init__(self, mlp: Any) -> None:
        super().__init__()
        self.width = mlp.gate_proj.in_features
        self.dense = nn.Linear(self.width, self.width)

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[1] * self.width, dtype=x.dtype).view(1, -1, self.width)
        return x + self.dense(places.sin())


class Pooled(nn.Module):
    """A linear that sees one row for all tokens."""

    def __init__(self, mlp: Any) -> None:
        super().__init__()
        self.dense = nn.Linear(mlp.gate_proj.in_features, mlp.gate_proj.in_features)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dense(x.mean(dim=1, keepdim=True))


class Read(nn.Module):
    """A linear whose weight is read without a call."""

    def __init__(self, mlp: Any) -> None:
        super().__init__()
        self.dense = nn.Linear(mlp.gate_proj.in_features, mlp.gate_proj.in_features)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.dense.weight)


class Absorbed(Read):
    """A linear that is called, and whose weight is read as well."""

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(super().forward(x))


@pytest.mark.parametrize(
    ("kind", "reason", "lost"),
    [
        (Routed, "in their order", {"experts.0", "experts.1"}),
        (Sorted, "in their order", {"dense"}),
        (OfPositions, "in their order", {"dense"}),
        (Pooled, "in their order", {"dense"}),
        (Read, "read by other code", {"dense"}),
        (Absorbed, "read by other code", {"dense"}),
    ],
)
def test_a_linear_that_sees_other_rows_is_left_out_with_its_reason(
    kind: Callable[[Any], nn.Module], reason: str, lost: set[str]
) -> None:
    model: Any = tiny.model()
    torch.manual_seed(0)
    model.model.layers[1].mlp = kind(model.model.layers[1].mlp)
    spec = probed(model)
    for name in lost:
        path = f"model.layers.1.mlp.{name}"
        assert path not in spec.targets
        assert reason in spec.left_out[path]
    assert "model.layers.0.mlp.down_proj" in spec.targets
    assert all(type(linear) is nn.Linear for _, linear in adaptable(model))
    assert not set(spec.left_out) & set(spec.targets)


def test_an_expert_that_no_token_of_the_probe_reached_is_left_out() -> None:
    model: Any = tiny.model()
    model.model.layers[1].mlp = Routed(model.model.layers[1].mlp)
    spec = probed(model)
    assert "not called" in spec.left_out["model.layers.1.mlp.idle"]


def test_a_linear_with_a_forward_of_its_own_is_left_out() -> None:
    spec = probed(tiny.model("llama4"))
    reasons = {path: reason for path, reason in spec.left_out.items() if "router" in path}
    assert len(reasons) == 2
    assert all("Llama4Router has a forward pass of its own" in why for why in reasons.values())
    assert any(path.endswith("shared_expert.down_proj") for path in spec.targets)


class Doubled(nn.Embedding):
    """Looks a row up and adds to it, which no adapter could know."""

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) + 1


def _doubled(model: Any) -> None:
    old = model.model.embed_tokens
    model.model.embed_tokens = Doubled(old.num_embeddings, old.embedding_dim)


def _read_elsewhere(model: Any) -> None:
    embedding = model.model.embed_tokens
    model.lm_head.register_forward_pre_hook(lambda _, args: (args[0] + embedding.weight.mean(),))


def _called_twice(model: Any) -> None:
    embedding = model.model.embed_tokens
    model.lm_head.register_forward_pre_hook(
        lambda _, args: (args[0] + embedding(torch.tensor([[1]])),)
    )


def test_the_embedding_is_what_an_adapter_may_change() -> None:
    shape = tiny.model("llama").get_input_embeddings().weight.shape
    assert probed(tiny.model("llama")).lookups == {"model.embed_tokens": (shape[1], shape[0])}


@pytest.mark.parametrize("change", [_doubled, _read_elsewhere, _called_twice])
def test_an_embedding_that_is_more_than_looked_up_once_is_none(
    change: Callable[[Any], None],
) -> None:
    model = tiny.model("llama")
    change(model)
    assert probed(model).lookups == {}


def test_stacks_are_those_of_modules_that_see_every_row() -> None:
    model: Any = tiny.model("gpt_oss")
    names = ("router.weight", "experts.gate_up_proj", "experts.down_proj")
    every = [f"model.layers.{i}.mlp.{name}" for i in range(2) for name in names]
    assert sorted(probed(model).stacks) == sorted(every)
    experts = model.model.layers[1].mlp.experts
    experts.register_forward_pre_hook(lambda _, args: (args[0].flip(0), *args[1:]))
    assert sorted(probed(model).stacks) == sorted(every[:4])


def test_a_module_that_holds_a_target_has_no_stacks() -> None:
    """It runs once for each adapter with its own stacks, and the target would see some rows."""
    model: Any = tiny.model("gpt_oss")
    experts = model.model.layers[1].mlp.experts
    experts.inner = nn.Linear(96, 96)
    old = experts.forward
    experts.forward = lambda x, *given: old(experts.inner(x), *given)
    spec = probed(model)
    assert "model.layers.1.mlp.experts.inner" in spec.targets
    assert not any("layers.1.mlp.experts" in path for path in spec.stacks)


def test_a_module_that_answers_with_other_rows_has_no_stacks() -> None:
    model: Any = tiny.model("gpt_oss")
    experts = model.model.layers[1].mlp.experts
    old = experts.forward
    experts.forward = lambda *args: old(*args).flatten()
    model.model.layers[1].mlp.forward = lambda x: (_through(model.model.layers[1].mlp, x), None)
    assert not any("layers.1.mlp.experts" in path for path in probed(model).stacks)


def _through(mlp: Any, x: Tensor) -> Tensor:
    rows = x.reshape(-1, x.shape[-1])
    _, scores, chosen = mlp.router(rows)
    return mlp.experts(rows, chosen, scores).view(x.shape)
