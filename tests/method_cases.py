"""Every registered method with small hyper-parameters, small shapes, and a layer of both."""

from collections.abc import Iterator

import pytest
import torch

import adapters_core.methods  # noqa: F401  (registers the methods)
from adapters_core.contract.method import Method, Shape
from adapters_core.contract.method_registry import registered
from made import TOY_PATH, random_coefficients, toy_bases

CPU = torch.device("cpu")
SHAPES = {
    "square": Shape(96, 96),
    "odd": Shape(45, 77),
    "tall": Shape(180, 60),
    "wide": Shape(48, 96),
    "prime": Shape(53, 31),
    "one_in": Shape(70, 1),
    "one_out": Shape(1, 70),
}
#: Hyper-parameters of each method for these small shapes; a method not named here has its defaults.
SMALL = {
    "c3a": [{"block_size": 1}, {"block_size": 16}, {"block_size": 32}],
    "clora": [
        {"r": 2, "num_spaces": 3},
        {"r": 1, "num_spaces": 1, "scaling": -3.5},
        {"r": 2, "num_spaces": 2, "diagonal": True},
    ],
    "dora": [{"r": 3}, {"r": 2, "alpha": 3.0, "rslora": True}],
    "fourierft": [{"n": 60}, {"n": 70, "scale": -3.5, "seed": 5}, {"n": 1}],
    "frod": [
        {"sparse_rate": 0.03},
        {"sparse_rate": 1e-4, "seed": 7, "saved": True},
        {"sparse_rate": 0.0},
    ],
    "loca": [{"n": 60}, {"n": 1, "scale": -3.5}],
    "lora": [{"r": 3}],
    "shira": [{"r": 1}, {"r": 2}],
    "tinylora": [{"r": 2, "u": 5}, {"r": 3, "u": 4, "tying": 1.0, "save": False}],
    "vera": [{"r": 3}, {"r": 5, "seed": 4, "save": True}],
    "waveletft": [
        {"n": 60},
        {"n": 60, "wavelet": "db3"},
        {"n": 50, "use_idwt": False},
        {"n": 70, "num_levels": 2},
        {"n": 1500, "num_levels": 3, "wavelet": "db2"},
    ],
}
EPS = torch.finfo(torch.float32).eps


def variants() -> Iterator[pytest.ParameterSet]:
    for name, kind in registered().items():
        for options in SMALL.get(name, [{}]):
            text = "-".join(f"{key}={value}" for key, value in options.items())
            yield pytest.param(kind(**options), id=f"{name}-{text}")


each_method = pytest.mark.parametrize("method", list(variants()))
each_shape = pytest.mark.parametrize("shape", list(SHAPES.values()), ids=list(SHAPES))


def at(method: Method, shape: Shape) -> Method:
    """Return the method as a layer of this shape has it."""
    return method.of_layers({TOY_PATH: shape})[TOY_PATH]


def basis_of(method: Method, shape: Shape, dtype: torch.dtype = torch.float32) -> object:
    bases = toy_bases({TOY_PATH: shape})
    if dtype == torch.float64:
        bases.use_float64(method.name, shape)
    return bases.get(method, shape, TOY_PATH)


def random_layer(method: Method, shape: Shape, seed: int = 0) -> dict[str, torch.Tensor]:
    return random_coefficients(method, shape, basis_of(method, shape), seed)
