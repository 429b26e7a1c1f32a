"""The engine holds itself against transformers at its start: long texts, adapters in company."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2LMHeadModel

import tiny
from adapters_core.base.causal_probe import with_causal_targets
from adapters_core.base.spec import spec_of
from adapters_core.layers import serving_plan as serving
from adapters_core.layers.inject import Injection, inject
from server.engine import mask_patterns, step_tensors
from server.engine.engine import Engine
from server.engine.mask_patterns import MaskPattern, UnsupportedAttention


def probed(model: nn.Module) -> Injection:
    spec = with_causal_targets(spec_of(model, "tiny"), model, 64)
    return inject(model, spec.targets, spec.kept)


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("shape", [*tiny.SHAPES, "modernbert-decoder", "llama4"])
@pytest.mark.parametrize("num_pages", [3, 100])
def test_what_is_right_is_served(shape: str, on_device: bool, num_pages: int) -> None:
    Engine(probed(tiny.model(shape)), num_pages, on_device=on_device)


def test_half_precision_is_held_too() -> None:
    Engine(probed(tiny.model("llama").bfloat16()), 100)


@pytest.mark.parametrize("window", [40, 200])
def test_the_long_text_goes_beyond_the_window(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that takes a window for none is found out, however wide it is."""
    Engine(probed(tiny.model("mistral", sliding_window=window)), 100)
    monkeypatch.setattr(mask_patterns, "pattern_of", lambda *given: MaskPattern())
    with pytest.raises(UnsupportedAttention, match="differ by .* of a text without an adapter"):
        Engine(probed(tiny.model("mistral", sliding_window=window)), 100)


def test_a_linear_whose_rows_are_not_the_steps_is_found_out_with_adapters() -> None:
    """Its rows are the sampled ones; the engine is not told so."""
    with pytest.raises(UnsupportedAttention, match=r"lm_head\.dense was given \d+ rows"):
        Engine(inject(tiny.model("modernbert-decoder")), 100)


class Sorted(nn.Module):
    """A linear that sees a row for each token, in another order."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        order = x.sum(-1).argsort(dim=1)[..., None].expand_as(x)
        return torch.empty_like(x).scatter(1, order, self.dense(x.gather(1, order)))


def test_rows_in_another_order_are_found_out_with_two_adapters() -> None:
    """Without adapters such a base answers as transformers does."""
    model: Any = tiny.model()
    torch.manual_seed(0)
    model.model.layers[1].mlp = Sorted(model.config.hidden_size)
    with pytest.raises(UnsupportedAttention, match="differ by .* of a text"):
        Engine(inject(model), 100)
    model = tiny.model()
    model.model.layers[1].mlp = Sorted(model.config.hidden_size)
    Engine(probed(model), 100)  # the probe leaves it out


@pytest.mark.parametrize(
    "kind", [serving.FactoredGroup, serving.MergedGroup], ids=["factored", "merged"]
)
def test_rows_that_get_their_neighbours_adapter_are_found_out(
    kind: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_off(*given: Any, **options: Any) -> Any:
        *others, index = given
        return kind(*others, index if index is None else (index - 1).clamp(min=0), **options)

    monkeypatch.setattr(step_tensors, kind.__name__, one_off)
    with pytest.raises(UnsupportedAttention, match="differ by .* of a text"):
        Engine(probed(tiny.model()), 100)


def test_what_a_base_raises_over_packed_rows_is_a_refusal() -> None:
    class Alone(GPT2LMHeadModel):
        """Takes no positions."""

        def forward(self, input_ids: Tensor, use_cache: bool = False, **options: Any) -> Any:
            if options.pop("position_ids", None) is not None:
                raise TypeError("no positions here")
            return super().forward(input_ids, use_cache=use_cache, **options)

    model = Alone(tiny.model("gpt2").config).eval()
    with pytest.raises(UnsupportedAttention, match="Alone cannot run .*: TypeError: no positions"):
        Engine(inject(model), 100)
