"""Adapted linears go into a model and come out of it without a trace."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from adapters_core.base.spec import adaptable, fingerprint
from adapters_core.layers.inject import inject
from adapters_core.layers.linear import AdaptedLinear
from adapters_core.layers.serving_plan import ServingPlan
from tiny_bases import TINY, tiny_llama, weights_sha256

IDS = torch.arange(14).view(2, 7)

each_model = pytest.mark.parametrize("make", list(TINY.values()), ids=list(TINY))


class Recorder:
    """A plan that writes down which linears asked it, and answers for the base."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[int, ...]]] = []

    def forward(self, linear: AdaptedLinear, x: torch.Tensor) -> torch.Tensor:
        self.asked.append((linear.path, tuple(x.shape)))
        return linear.base_rows(x)


@each_model
@torch.inference_mode()
def test_without_a_plan_nothing_changes_and_undo_leaves_no_trace(
    make: Callable[[], nn.Module],
) -> None:
    model = make()
    modules = dict(model.named_modules())
    keys, before = list(model.state_dict()), weights_sha256(model)
    logits = model(IDS).logits
    injection = inject(model)
    assert set(injection.linears) == {path for path, _ in adaptable(make())}
    assert torch.equal(model(IDS).logits, logits)
    injection.undo()
    assert list(model.state_dict()) == keys
    assert weights_sha256(model) == before
    assert dict(model.named_modules()) == modules
    assert torch.equal(model(IDS).logits, logits)
    injection.undo()  # twice is harmless
    assert dict(model.named_modules()) == modules


@each_model
@torch.inference_mode()
def test_every_linear_asks_the_plan_once_for_all_rows(make: Callable[[], nn.Module]) -> None:
    model = make()
    plain = model(IDS).logits
    injection = inject(model)
    recorder = Recorder()
    injection.switch.plan = recorder
    logits = model(IDS).logits
    assert sorted(path for path, _ in recorder.asked) == sorted(injection.linears)
    assert {shape for _, shape in recorder.asked} == {
        (14, injection.linears[path].shape.in_) for path, _ in recorder.asked
    }
    assert (logits - plain).abs().max() <= 1e-5


def test_undo_takes_the_plan_away() -> None:
    injection = inject(tiny_llama())
    injection.switch.plan = ServingPlan()
    injection.undo()
    assert injection.switch.plan is None


def test_only_the_named_paths_are_wrapped() -> None:
    model = tiny_llama()
    path = "model.layers.1.mlp.up_proj"
    injection = inject(model, [path])
    assert list(injection.linears) == [path]
    assert [p for p, m in model.named_modules() if isinstance(m, AdaptedLinear)] == [path]


@pytest.mark.parametrize(
    "bad",
    [
        "lm_head",
        "model.norm",
        "model.norm.weight",
        "model.embed_tokens.weight",
        "model.layers.9.mlp.up_proj",
        "",
    ],
)
def test_a_path_that_is_no_target_leaves_the_model_alone(bad: str) -> None:
    model = tiny_llama()
    keys = list(model.state_dict())
    with pytest.raises(KeyError):
        inject(model, ["model.layers.0.mlp.up_proj", bad])
    assert list(model.state_dict()) == keys


def test_a_linear_inside_a_module_with_stacks_is_wrapped_and_put_back() -> None:
    model, mlp = tiny_llama(), "model.layers.0.mlp"
    model.get_submodule(mlp).stack = nn.Parameter(torch.ones(2, 3, 4))
    modules = dict(model.named_modules())
    injection = inject(model, [f"{mlp}.up_proj", f"{mlp}.stack"])
    assert set(injection.linears) == {f"{mlp}.up_proj"}
    assert set(injection.experts) == {mlp}
    injection.undo()
    assert dict(model.named_modules()) == modules


def test_golden_is_the_bases_own_memory() -> None:
    model = tiny_llama()
    path = "model.layers.0.self_attn.k_proj"
    weight = model.get_submodule(path).weight
    linear = inject(model, [path]).linears[path]
    assert linear.golden().data_ptr() == weight.data_ptr()


@pytest.mark.parametrize("shape", [(77,), (3, 77), (2, 3, 77), (0, 77)])
def test_any_leading_dimensions_are_kept(shape: tuple[int, ...]) -> None:
    model = nn.Sequential(nn.Linear(77, 45))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    plain = model(x)
    injection = inject(model)
    assert torch.equal(model(x), plain)
    injection.switch.plan = ServingPlan()
    assert model(x).shape == plain.shape
    assert torch.allclose(model(x), plain, atol=1e-6)


def test_gradients_flow_through_without_a_plan() -> None:
    model = nn.Sequential(nn.Linear(5, 3))
    injection = inject(model)
    model(torch.ones(2, 5)).sum().backward()
    assert injection.linears["0"].golden().grad is not None or model[0].base.weight.grad is not None


def test_the_fingerprint_is_of_the_base_again_after_undo() -> None:
    model = tiny_llama()
    before = fingerprint(model)
    inject(model).undo()
    assert fingerprint(model) == before
