"""Random coefficients of any method, on toy bases or real ones."""

from collections.abc import Mapping

import torch
from torch import Tensor

from adapters_core.base.spec import BaseSpec, BaseWeights
from adapters_core.contract.layer import Shape
from adapters_core.contract.method import Method
from adapters_core.layers.basis_cache import BasisCache

CPU = torch.device("cpu")
#: Where single layers of toy bases stand.
TOY_PATH = "model.layers.0.self_attn.q_proj"


def toy_bases(shapes: Mapping[str, Shape]) -> BasisCache:
    """Return bases over a toy base with random weights; every layer has a sister of its shape."""
    targets = dict(shapes) | {path.replace(".0.", ".1."): s for path, s in shapes.items()}
    weights = {}
    for path, shape in targets.items():
        generator = torch.Generator().manual_seed(shape.out * 1000 + shape.in_ + len(weights))
        weights[path] = torch.randn(shape, generator=generator) / shape.in_**0.5
    return BasisCache(CPU, BaseWeights(BaseSpec("toy", "sha256:toy", targets), weights.__getitem__))


def random_coefficients(
    method: Method, shape: Shape, basis: object, seed: int, size: float = 1.0
) -> dict[str, Tensor]:
    """Return what `init` gives with noise on every number that training would move.

    Positions, being integers, and what is fixed stay as they are.
    """
    generator = torch.Generator().manual_seed(seed)
    fresh = method.init(shape, generator, basis)
    specs = method.tensors(shape)
    return {
        name: tensor + size * torch.randn(tensor.shape, generator=generator)
        if specs[name].floating and specs[name].trained
        else tensor
        for name, tensor in fresh.items()
    }


def random_adapter(
    method: Method, shapes: Mapping[str, Shape], bases: BasisCache, seed: int, size: float = 1.0
) -> tuple[dict[str, Method], dict[str, dict[str, Tensor]]]:
    """Return method and random coefficients of every layer; what layers share, they share."""
    methods = method.of_layers(shapes)
    shared: dict[str, Tensor] = {}
    layers = {}
    for number, (target, shape) in enumerate(shapes.items()):
        basis = bases.get(methods[target], shape, target)
        made = random_coefficients(methods[target], shape, basis, 1000 * seed + number, size)
        for name, spec in methods[target].tensors(shape).items():
            if spec.shared is not None:
                made[name] = shared.setdefault(spec.shared, made[name])
        layers[target] = made
    return methods, layers
