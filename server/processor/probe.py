"""Tries one setting: do rows keep their bits over this base's shapes, and what does a step cost?

    python -m server.processor.probe BASE DTYPE

The last line of standard output is JSON: `multiple`, of rows, None if none holds; `seconds`, of a
mean step's products. Weights are random: only shapes matter, which come from the base's config.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel
from transformers.pytorch_utils import Conv1D

import adapters_core.methods  # noqa: F401  (registers what `usual_methods` returns)
from adapters_core.contract.layer import Shape
from adapters_core.contract.rows import padding_of, set_row_multiple
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.canary import usual_methods
from adapters_core.layers.invariance import (
    RowProduct,
    linear_product,
    moving_product,
    products_of_methods,
)

MULTIPLES = (4, 8, 16, 32, 64)
#: Rows of a few steps: a single caller's, small and full batches, a piece of a prompt.
_STEPS = (1, 8, 32, 128)
_REPEATS = 7
#: Larger products, as of a vocabulary, are tried with fewer rows of their weight.
_MAX_OUT = 16384
_CPU = torch.device("cpu")

#: Output width, input width, and whether the weight is stored transposed (GPT-2's Conv1D).
Layer = tuple[int, int, bool]


def layers_of(source: str) -> Counter[Layer]:
    """Return the base's linears and how many there are of each, from its config alone."""
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModel.from_config(config, trust_remote_code=False)
    layers: Counter[Layer] = Counter()
    for module in model.modules():
        if isinstance(module, nn.Linear | Conv1D):
            first, second = module.weight.shape
            is_other = isinstance(module, Conv1D)
            layers[(second, first, True) if is_other else (first, second, False)] += 1
    text = config.get_text_config()
    if getattr(text, "vocab_size", None) and getattr(text, "hidden_size", None):
        layers[text.vocab_size, text.hidden_size, False] += 1
    return layers


def weights_of(layers: Counter[Layer], dtype: torch.dtype) -> dict[Layer, Tensor]:
    """Return a random weight of each layer."""
    weights = {}
    for out, in_, is_other in layers:
        size = min(out, _MAX_OUT)
        shape = (in_, size) if is_other else (size, in_)
        weights[out, in_, is_other] = torch.randn(shape, dtype=dtype)
    return weights


def products(weights: dict[Layer, Tensor], methods: bool = True) -> Iterator[RowProduct]:
    """Yield the linears' products, then those of every method on them."""
    for (_, _, is_other), weight in weights.items():
        yield linear_product("a linear", weight, is_other)
    if methods:
        shapes = {Shape(out, in_) for out, in_, _ in weights if out <= _MAX_OUT}
        yield from products_of_methods(usual_methods(), shapes, BasisCache(_CPU))


def step_seconds(layers: Counter[Layer], weights: dict[Layer, Tensor]) -> float:
    """Return the seconds of all linears of a step, a mean over the steps of `_STEPS`."""
    total = 0.0
    for rows in _STEPS:
        for layer, count in layers.items():
            weight = weights[layer]
            x = torch.randn(rows + padding_of(rows), layer[1], dtype=weight.dtype)
            total += count * _least_seconds(x, weight.T if layer[2] else weight)
    return total / len(_STEPS)


def _least_seconds(x: Tensor, weight: Tensor) -> float:
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        F.linear(x, weight)
        times.append(time.perf_counter() - started)
    return min(times)


@torch.inference_mode()
def probe(source: str, dtype: str) -> dict[str, float | int | None]:
    """Return the least multiple of rows that holds, and the seconds of a step with it."""
    layers = layers_of(source)
    weights = weights_of(layers, torch.float32 if dtype == "auto" else getattr(torch, dtype))
    for multiple in MULTIPLES:
        set_row_multiple(multiple)
        if moving_product(products(weights), _CPU) is None:
            return {"multiple": multiple, "seconds": step_seconds(layers, weights)}
    return {"multiple": None, "seconds": 0.0}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe(sys.argv[1], sys.argv[2])) + "\n")
