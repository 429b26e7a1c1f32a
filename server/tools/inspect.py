"""The contents of an adapter's file and its updates of a base, layer by layer."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from adapters_core.base.spec import weights_of
from adapters_core.contract.layer import Shape
from adapters_core.contract.method import Method
from adapters_core.contract.method_registry import for_config, variant_of
from adapters_core.contract.safetensors_header import read_header, read_tensors
from adapters_core.errors import InvalidAdapter
from adapters_core.format.keys import PREFIX, without_additions
from adapters_core.format.read import Adapter
from adapters_core.format.token_rows import ROWS
from adapters_core.interchange.layer_facts import layer_facts
from adapters_core.interchange.official import is_official
from adapters_core.interchange.project import dense_delta
from adapters_core.layers.basis_cache import BasisCache
from server.base.loading import Base
from server.tools.adapter_folder import AdapterFolder

#: A layer's name, to derive the tensors' names of every method.
_ANY_SHAPE = Shape(1024, 1024)


@dataclass(frozen=True)
class Inspection:
    """An adapter's facts as JSON values.

    Args:
        base: name, fingerprint and whether the file itself names it; None without a base.
        layers: one object a layer; with a base also its update (see layer_facts.LayerFacts).
    """

    method: str
    config: dict[str, Any]
    digest: str
    size_bytes: int
    num_coefficients: int
    base: dict[str, Any] | None
    layers: list[dict[str, Any]]


@dataclass(frozen=True)
class Inspector:
    """An adapter on its base, and the updates that it makes there."""

    folder: AdapterFolder
    adapter: Adapter
    base: Base
    basis_cache: BasisCache

    @classmethod
    def of(cls, folder: AdapterFolder, base: Base) -> "Inspector":
        """Return the inspector of an adapter.

        Raises:
            AdapterError: the base does not take the adapter.
        """
        refuse_official(folder)
        basis_cache = BasisCache(torch.device("cpu"), weights_of(base.model, base.spec))
        return cls(folder, folder.read(base.spec), base, basis_cache)

    def layers_like(self, pattern: str | None) -> list[str]:
        """Return the adapted layers with a path that matches a shell pattern; all without one.

        Raises:
            InvalidAdapter: none does.
        """
        return chosen(list(self.adapter.methods), pattern)

    def delta(self, path: str) -> Tensor:
        """Return a layer's update `[out, in_]`, float32."""
        method, layer = self.adapter.methods[path], self.adapter.layers[path]
        with torch.inference_mode():
            return dense_delta(method, layer, self.base.spec.layers[path], path, self.basis_cache)

    def inspect(self, paths: list[str]) -> Inspection:
        """Return the facts of the adapter and of these layers."""
        told, weights = self.adapter.description, weights_of(self.base.model, self.base.spec)
        layers = []
        for path in paths:
            method, layer = self.adapter.methods[path], self.adapter.layers[path]
            shape = self.base.spec.layers[path]
            facts = layer_facts(method, layer, shape, self.delta(path), weights.weight(path))
            layers.append({"target": path} | asdict(facts) | {"shape": list(shape)})
        base = {"name": told.base_name, "fingerprint": told.base_fingerprint}
        return Inspection(
            method=told.method,
            config=told.method_config,
            digest=told.digest,
            size_bytes=told.size_bytes,
            num_coefficients=told.num_coefficients,
            base=base | {"verified": told.base_verified},
            layers=layers,
        )


def inspect_file(folder: AdapterFolder, pattern: str | None = None) -> Inspection:
    """Return the facts in the file alone: nothing is checked against a base.

    Raises:
        AdapterError: the file or its config is malformed.
    """
    refuse_official(folder)
    config = folder.config
    kind = for_config(config)
    header = read_header(folder.weights)
    layers = _by_layer(read_tensors(folder.weights, header), kind)
    return Inspection(
        method=kind.name,
        config={name: config.raw[name] for name in sorted(kind.peft_fields & config.raw.keys())},
        digest=folder.digest,
        size_bytes=folder.weights.stat().st_size,
        num_coefficients=sum(entry.count for entry in header.tensors.values()),
        base=None,
        layers=[
            {
                "target": path,
                "num_coefficients": sum(tensor.numel() for tensor in layers[path]),
                "energy": sum(float(tensor.double().square().sum()) for tensor in layers[path]),
            }
            for path in chosen(list(layers), pattern)
        ],
    )


def chosen(paths: list[str], pattern: str | None) -> list[str]:
    """Return the paths that match a shell pattern; all without one.

    Raises:
        InvalidAdapter: none does.
    """
    found = [path for path in paths if pattern is None or fnmatchcase(path, pattern)]
    if not found:
        shown = ", ".join(paths[:3]) + (" …" if len(paths) > 3 else "")
        raise InvalidAdapter(f"--layers {pattern} fits none of {shown}", "layers")
    return found


def refuse_official(folder: AdapterFolder) -> None:
    """Refuse a checkpoint of the FourierFT authors' code: its file does not name its positions.

    Raises:
        InvalidAdapter: it is one.
    """
    if is_official(folder.config):
        message = "a checkpoint of the FourierFT authors' own code: `overtone convert` it first"
        raise InvalidAdapter(message, "peft_type")


def _by_layer(tensors: Mapping[str, Tensor], kind: type[Method]) -> dict[str, list[Tensor]]:
    """Return path -> the coefficients of every layer, by the tensors' names.

    Layers that the file replaces, as a whole or token by token, come last.
    """
    names = _names_of(kind)
    layers: dict[str, list[Tensor]] = {}
    rest: dict[str, list[Tensor]] = {}
    for file_key, tensor in tensors.items():
        key = without_additions(file_key)
        ending = next((f".{name}" for name in names if key.endswith(f".{name}")), "")
        replaced = next((end for end in (f".{ROWS}", ".weight") if key.endswith(end)), "")
        if key.endswith(".base_layer.weight"):  # a copy of the base's own weight
            continue
        found, end = (layers, ending) if ending else (rest, replaced)
        if tensor.is_floating_point() and key.startswith(PREFIX) and end:
            found.setdefault(key.removeprefix(PREFIX).removesuffix(end), []).append(tensor)
    if not layers:
        wanted = ", ".join(f"{PREFIX}<layer>.{name}" for name in names)
        message = f"no tensor of the file is one of method {kind.name}; expected {wanted}"
        raise InvalidAdapter(message, next(iter(tensors)))
    return {**layers, **rest}


def _names_of(kind: type[Method]) -> list[str]:
    """Return the names of a layer's coefficients, on linears and on embeddings."""
    kinds = [kind, variant_of(kind, "embedding")]
    found: dict[str, None] = {}
    for one in kinds:
        specs = one().fitted(_ANY_SHAPE).tensors(_ANY_SHAPE) if one is not None else {}
        found |= {name: None for name, spec in specs.items() if spec.floating}
    return list(found)
