"""What an adapter may know of its base: names, shapes and a fingerprint."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from adapters_core.method import Shape

#: Numbers of one tensor that enter the fingerprint, evenly spaced over it.
_SAMPLES = 4096


@dataclass(frozen=True)
class BaseSpec:
    """A resident base, without its weights.

    Args:
        name: what people call it.
        fingerprint: `sha256:…` over its parameters (see `fingerprint`).
        targets: path -> shape of every linear that an adapter may change, in the model's order.
    """

    name: str
    fingerprint: str
    targets: Mapping[str, Shape]


def spec_of(model: nn.Module, name: str) -> BaseSpec:
    """Return the spec of a loaded model."""
    targets = {path: shape_of(module) for path, module in adaptable(model)}
    return BaseSpec(name, fingerprint(model), targets)


def adaptable(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield path and module of every `nn.Linear` and `Conv1D` below the output embedding."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and module is not head:
            yield path, module


def shape_of(linear: nn.Module) -> Shape:
    """Return the shape as a map; GPT-2's `Conv1D` stores its weight as `[in, out]`."""
    out, in_ = weight_of(linear).shape
    return Shape(out, in_)


def weight_of(linear: nn.Module) -> Tensor:
    """Return the weight as a view `[out, in]`."""
    weight = linear.weight
    assert isinstance(weight, Tensor)
    return weight.T if isinstance(linear, Conv1D) else weight


@torch.no_grad()
def fingerprint(model: nn.Module) -> str:
    """Return `sha256:…` over every parameter's name, shape and evenly spaced values.

    Values are taken as bfloat16, so that a base stored in bfloat16 has one fingerprint whatever
    dtype and device it was loaded to. Up to 4096 values of a tensor are read: any training moves
    them; two bases that differ in a few single weights of a large tensor are not told apart.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name}\0{list(parameter.shape)}\0".encode())
        flat = parameter.detach().reshape(-1)
        step = max(1, -(-flat.numel() // _SAMPLES))
        sample = flat[::step].to(torch.bfloat16).cpu().contiguous()
        digest.update(sample.view(torch.int16).numpy().astype("<i2").tobytes())
    return "sha256:" + digest.hexdigest()
