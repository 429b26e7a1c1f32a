"""Kernels of Triton's held against torch's way, on the device where they run."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from adapters_core.contract.layer import Shape
from adapters_core.contract.method import Method
from adapters_core.contract.rows import Rows
from adapters_core.layers.bank import EMPTY_SLOT, Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.merge import BaseLayer, materialise
from bench.lib.bases import random_adapter


def update_error(
    method: Method, shapes: Mapping[str, Shape], bases: BasisCache, dtype: torch.dtype
) -> dict[str, Any]:
    """Return by how much the kernels' updates differ from torch's, as a share of their norm.

    Seven rows of three adapters and of none, in `dtype`; updates are float32. The largest over all
    linears that have kernels, and their number.
    """
    bank = Bank(Layout.of(method.of_layers(shapes), shapes), bases, slots=4)
    slots = [bank.add(bank.pack(*random_adapter(method, shapes, bases, seed))) for seed in range(3)]
    order = torch.tensor([*slots, EMPTY_SLOT, *reversed(slots)], device=bases.device)
    found = [
        _error(bank, path, shape, order, dtype)
        for path, shape in shapes.items()
        if bank.kernels_of(path) is not None
    ]
    return {"error": max(found, default=None), "linears": len(found)}


def _error(bank: Bank, path: str, shape: Shape, slots: Tensor, dtype: torch.dtype) -> float:
    """Return the error of one linear's kernels."""
    kernels = bank.kernels_of(path)
    assert kernels is not None
    group, number = kernels
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(len(slots), shape.in_, generator=generator).to(slots.device, dtype)
    got = torch.zeros(len(slots), shape.out, device=slots.device)
    group.add(group.begin(x, bank.buffer, slots, number), number, got, bank.buffer, slots)
    true = bank.apply(path, x.float(), Rows(slots, len(slots)))
    assert true is not None
    return float((got - true).norm() / true.norm())


def merge_error(
    method: Method, linears: Mapping[str, BaseLayer], bases: BasisCache
) -> dict[str, Any]:
    """Return by how much merged weights differ from golden + delta, rounded once.

    As a share of the delta's norm, the largest over all linears; and the largest share of cells
    that differ at all.
    """
    shapes = {path: linear.shape for path, linear in linears.items()}
    methods, layers = random_adapter(method, shapes, bases, 0)
    merged = materialise(methods, layers, linears, bases)
    errors, shares = [], []
    for path, delta in _deltas(methods, layers, shapes, bases):
        golden = linears[path].golden()
        true = (golden.float() + delta).to(golden.dtype)
        errors.append(float((merged[path].float() - true.float()).norm() / delta.norm()))
        shares.append(float((merged[path] != true).float().mean()))
    return {"error": max(errors), "cells": max(shares)}


def _deltas(
    methods: Mapping[str, Method],
    layers: Mapping[str, Mapping[str, Tensor]],
    shapes: Mapping[str, Shape],
    bases: BasisCache,
) -> Iterator[tuple[str, Tensor]]:
    """Yield every linear's delta as the method itself makes it."""
    for path, method in methods.items():
        own = {name: tensor.to(bases.device) for name, tensor in layers[path].items()}
        basis = bases.get(method, shapes[path], path, layers[path])
        yield path, method.delta(own, shapes[path], basis)
