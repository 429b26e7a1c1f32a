"""An adapter read from its file and config, and checked against a base.

The file names layers by the base's own module paths, as PEFT does:
`base_model.model.<path>.<tensor>`. Shapes always come from the base, never from the file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import adapters_core.methods  # noqa: F401  (registers the methods)
from adapters_core.base.heads import Head, labels_in
from adapters_core.base.spec import BaseSpec
from adapters_core.contract.digest import digest_of
from adapters_core.contract.layer import Coefficients, TensorSpec
from adapters_core.contract.method import Method
from adapters_core.contract.safetensors_header import (
    DEFAULT_MAX_FILE_BYTES,
    read_tensors,
)
from adapters_core.errors import InvalidAdapter, NoEffect, UnusedTensors
from adapters_core.format.copies import check_copies
from adapters_core.format.description import AdapterDescription
from adapters_core.format.file_layers import (
    FileParts,
    check_layers,
    check_targets,
    methods_of_file,
)
from adapters_core.format.header_parts import HeaderParts, read_parts
from adapters_core.format.keys import (
    PREFIX,
    SHARED_PREFIX,
    key_of,
)
from adapters_core.format.tying import check_tied


@dataclass(frozen=True)
class Adapter:
    """A checked adapter: its description, and method and coefficients of every adapted layer.

    On a classifier it may have a head of its own, and names for that head's labels.
    """

    description: AdapterDescription
    methods: Mapping[str, Method]
    layers: Mapping[str, Coefficients]
    head: Head | None = None
    labels: Sequence[str] | None = None


def read_adapter(
    file: Path, config_bytes: bytes, base: BaseSpec, max_bytes: int = DEFAULT_MAX_FILE_BYTES
) -> Adapter:
    """Return the adapter in `file`, after every check that does not need the base's weights.

    Raises:
        AdapterError: see adapters_core/errors.py; `param` names the tensor or field at fault.
    """
    parts = read_parts(file, config_bytes, base, max_bytes)
    chosen = _chosen_methods(parts, base)
    keys = {t: _keys(method, t, base) for t, method in (chosen | parts.replaced).items()}
    _check_tensors(parts, keys)
    _check_positions(parts.own, chosen, base)
    tensors = read_tensors(file, parts.whole)
    check_copies(tensors, parts.whole, parts.copies, base)
    layers = {
        target: {name: tensors[key] for name, (key, _) in keys[target].items()} for target in keys
    }
    methods = _checked_methods(parts, chosen, layers, base)
    num_labels, saved = parts.num_labels, {name: tensors[PREFIX + name] for name in parts.saved}
    return Adapter(
        _description(parts, methods, base, file),
        methods,
        layers,
        Head(saved, num_labels) if saved else None,
        labels_in(parts.config, num_labels) if base.head else None,
    )


def _chosen_methods(parts: HeaderParts, base: BaseSpec) -> dict[str, Method]:
    """Return target -> method of the adapted layers, which file and config agree on."""
    config, kind, adapted = parts.config, parts.kind, parts.adapted
    check_layers(kind, adapted, base)
    check_targets(config, adapted, base, parts.saved)
    return methods_of_file(config, kind, FileParts(adapted, parts.shared, parts.own), base)


def _checked_methods(
    parts: HeaderParts,
    chosen: Mapping[str, Method],
    layers: Mapping[str, Coefficients],
    base: BaseSpec,
) -> dict[str, Method]:
    """Return the methods of all layers, with what the file's values say of them, after a check."""
    check_tied(parts.config, {**chosen, **parts.replaced}, layers, base)
    adapted = parts.kind.with_values(chosen, {target: layers[target] for target in chosen})
    methods = {**adapted, **parts.replaced}
    for target, method in methods.items():
        _check_values(method, layers[target], base, target)
    if not parts.saved and all(methods[target].is_zero(layers[target]) for target in methods):
        raise NoEffect("every coefficient is zero: the base would answer under this name", "file")
    return methods


def _description(
    parts: HeaderParts, methods: Mapping[str, Method], base: BaseSpec, file: Path
) -> AdapterDescription:
    adapted = {target: one for target, one in methods.items() if target not in parts.replaced}
    return AdapterDescription(
        digest=digest_of(file, parts.config.canonical()),
        method=parts.kind.name,
        method_config=_common_config(adapted),
        base_name=base.name,
        base_fingerprint=base.fingerprint,
        base_verified=parts.is_verified,
        target_modules=tuple(methods),
        num_coefficients=sum(entry.count for entry in parts.counted.tensors.values()),
        size_bytes=file.stat().st_size,
    )


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


def _check_values(method: Method, layer: Coefficients, base: BaseSpec, target: str) -> None:
    """Let the method look at its values; a refusal names the tensor as the file does."""
    try:
        method.check(layer, base.layers[target])
    except InvalidAdapter as error:
        key = PREFIX + f"{target}.{error.param}"
        raise InvalidAdapter(f"{key}: {error.message}", key) from error


def _common_config(methods: Mapping[str, Method]) -> dict[str, Any]:
    """Return the hyper-parameters; a value that differs between layers becomes a sorted list."""
    configs = [method.config() for method in set(methods.values())]
    values = {name: {config[name] for config in configs} for name in configs[0]}
    return {name: v.pop() if len(v) == 1 else sorted(v) for name, v in values.items()}
