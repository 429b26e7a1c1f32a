"""What an adapter's header and config decide, before a number of the file is read.

Adapters of one recipe have the same header and config, so a reader of many keeps what these decide.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import adapters_core.methods  # noqa: F401  (registers the methods)
from adapters_core.base.spec import BaseSpec
from adapters_core.contract.layer import TensorSpec
from adapters_core.contract.method import Method
from adapters_core.contract.safetensors_header import RawHeader, parse_header
from adapters_core.errors import InvalidAdapter, UnusedTensors
from adapters_core.format.file_layers import (
    FileParts,
    check_layers,
    check_targets,
    methods_of_file,
)
from adapters_core.format.header_parts import HeaderParts, parts_of
from adapters_core.format.keys import PREFIX, SHARED_PREFIX, key_of


@dataclass(frozen=True)
class ReadingPlan:
    """How a file with this header and config is read.

    Args:
        parts: what the two say.
        methods: target -> method of the layers that the method changes, by the header alone.
        keys: target -> tensor name -> key in the file, of these and of replaced layers.
        canonical_config: as it enters the digest.
        file_bytes: of the whole file.
    """

    parts: HeaderParts
    methods: Mapping[str, Method]
    keys: Mapping[str, Mapping[str, str]]
    canonical_config: bytes
    file_bytes: int


def plan_of(raw: RawHeader, config: bytes, base: BaseSpec) -> ReadingPlan:
    """Return the plan, after every check that needs neither values nor the base's weights.

    Raises:
        AdapterError: see adapters_core/errors.py; `param` names the tensor or field at fault.
    """
    parts = parts_of(parse_header(raw), config, base)
    chosen = _chosen_methods(parts, base)
    keys = {t: _keys(method, t, base) for t, method in (chosen | parts.replaced).items()}
    _check_tensors(parts, keys)
    _check_positions(parts.own, chosen, base)
    names = {t: {name: key for name, (key, _) in layer.items()} for t, layer in keys.items()}
    file_bytes = raw.data_start + raw.data_bytes
    return ReadingPlan(parts, chosen, names, parts.config.canonical(), file_bytes)


def _chosen_methods(parts: HeaderParts, base: BaseSpec) -> dict[str, Method]:
    """Return target -> method of the adapted layers, which file and config agree on."""
    config, kind, adapted = parts.config, parts.kind, parts.adapted
    check_layers(kind, adapted, base)
    check_targets(config, adapted, base, parts.saved)
    return methods_of_file(config, kind, FileParts(adapted, parts.shared, parts.own), base)


def _check_positions(own: Mapping[str, Any], methods: Mapping[str, Method], base: BaseSpec) -> None:
    """Hold the positions that the file was trained on against those its seed gives here."""
    claimed = own.get("places", {})
    # Layers of one method and shape share their positions: one of them is enough.
    distinct = {(method, base.layers[target]): target for target, method in methods.items()}
    for (method, shape), target in distinct.items():
        name = f"{shape.out}x{shape.in_}"
        if name in claimed and claimed[name] != method.positions_digest(shape):
            raise InvalidAdapter(
                f"the seed gives other positions for {name} than the file's", target
            )


def _keys(method: Method, target: str, base: BaseSpec) -> dict[str, tuple[str, TensorSpec]]:
    """Return name -> key and spec of every tensor that the layer's method needs."""
    specs = method.tensors(base.layers[target])
    return {name: (key_of(target, name, spec), spec) for name, spec in specs.items()}


def _check_tensors(
    parts: HeaderParts, keys: Mapping[str, Mapping[str, tuple[str, TensorSpec]]]
) -> None:
    """Hold the file's tensors against what the methods need, both ways."""
    expected = {key: spec for layer in keys.values() for key, spec in layer.values()}
    for key, spec in expected.items():
        entry = parts.layered.tensors.get(key)
        if entry is None:
            raise InvalidAdapter(f"{key} is missing; expected shape {list(spec.shape)}", key)
        if entry.shape != spec.shape:
            got, want = list(entry.shape), list(spec.shape)
            raise InvalidAdapter(f"{key} has shape {got}, expected {want} for this base", key)
        if entry.dtype.is_floating_point != spec.floating:
            raise InvalidAdapter(f"{key} has dtype {entry.dtype}", key)
    for target, names in parts.layers.items():
        for name in names:
            key = PREFIX + f"{target}.{name}"
            if key not in expected:
                raise UnusedTensors(
                    f"{key} is no tensor of this method; it has {', '.join(keys[target])}", key
                )
    for name in parts.shared:
        key = SHARED_PREFIX + name
        if key not in expected:
            raise UnusedTensors(f"{key} is shared by no layer of the file", key)
