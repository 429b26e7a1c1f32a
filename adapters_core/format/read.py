"""An adapter read from its file and config, checked against a base; and written back.

The file names layers by the base's own module paths, as PEFT does:
`base_model.model.<path>.<tensor>`. Shapes always come from the base, never from the file.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import adapters_core.methods  # noqa: F401  (registers the methods)
from adapters_core.base.heads import Head, check_head, check_task, labels_in, saved_parameters
from adapters_core.base.spec import BaseSpec
from adapters_core.contract.layer import Coefficients, TensorSpec
from adapters_core.contract.method import Method
from adapters_core.contract.method_registry import for_config
from adapters_core.contract.peft_config import PeftConfig, parse_json
from adapters_core.contract.safetensors_header import (
    DEFAULT_MAX_FILE_BYTES,
    Header,
    TensorEntry,
    digest_of,
    read_header,
    read_tensors,
)
from adapters_core.errors import BaseMismatch, InvalidAdapter, NoEffect, UnusedTensors
from adapters_core.format.copies import check_copies, without_copies
from adapters_core.format.description import AdapterDescription
from adapters_core.format.file_layers import (
    FileParts,
    check_layers,
    check_targets,
    fields_of,
    methods_of_file,
)
from adapters_core.format.keys import (
    PREFIX,
    SHARED_PREFIX,
    key_of,
    plainly_spelled,
    refuse_unknown,
    split_key,
)
from adapters_core.format.replaced import replaced_by
from adapters_core.format.stack_keys import chosen_stacks, with_stack_keys
from adapters_core.format.tying import check_tied

#: The metadata entry of our own files: JSON with the base's name and fingerprint.
METADATA_KEY = "overtone"


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
    config = PeftConfig.parse(config_bytes)
    kind = for_config(config)
    check_task(config, base.head, base.name)
    config.refuse_unread([*kind.peft_fields, *fields_of(kind, base)])
    whole, paths = plainly_spelled(read_header(file, max_bytes), base)
    config = config.of_paths(paths)
    stacks = chosen_stacks(config, base)
    whole = with_stack_keys(whole, stacks)
    replaced = replaced_by(config, base)
    own = _own_metadata(whole)
    verified = _check_fingerprint(own, base)
    own_parts, copies = without_copies(whole, base, replaced)
    saved, num_labels, header = _without_head(config, own_parts, base)
    shared, entries = _sorted_out(header, base, kind)
    check_layers(config, kind, entries.keys() - replaced.keys(), base)
    adapted = {t: e for t, e in entries.items() if t not in replaced}
    check_targets(config, adapted, base, saved)
    methods = methods_of_file(config, kind, FileParts(adapted, shared, own), base)
    every = methods | replaced
    keys = {t: _keys(every[t], t, base) for t in every}
    _check_tensors(header, keys, shared, entries)
    _check_positions(own, methods, base)
    tensors = read_tensors(file, whole)
    check_copies(tensors, copies, base)
    layers = {
        target: {name: tensors[key] for name, (key, _) in keys[target].items()} for target in keys
    }
    check_tied(config, every, layers, base)
    methods = dict(kind.with_values(methods, {t: layers[t] for t in methods}))
    every = methods | replaced
    for target, method in every.items():
        _check_values(method, layers[target], base, target)
    if not saved and all(every[target].is_zero(layers[target]) for target in every):
        raise NoEffect("every coefficient is zero: the base would answer under this name", "file")
    description = AdapterDescription(
        digest=digest_of(file, config.canonical()),
        method=kind.name,
        method_config=_common_config(methods),
        base_name=base.name,
        base_fingerprint=base.fingerprint,
        base_verified=verified,
        target_modules=tuple(every),
        num_coefficients=sum(entry.count for entry in own_parts.tensors.values()),
        size_bytes=file.stat().st_size,
    )
    head = Head({name: tensors[PREFIX + name] for name in saved}, num_labels) if saved else None
    labels = labels_in(config, num_labels) if base.head else None
    return Adapter(description, every, layers, head, labels)


def _without_head(
    config: PeftConfig, header: Header, base: BaseSpec
) -> tuple[Sequence[str], int, Header]:
    """Return the names of the head's parameters, its number of labels, and the header's rest."""
    if base.head is None:
        return (), 0, header
    saved = saved_parameters(config, base.head)
    keys = {PREFIX + name: name for name in saved}
    entries = {keys[key]: entry for key, entry in header.tensors.items() if key in keys}
    num_labels = check_head(entries, saved, base.head, PREFIX)
    rest = {key: entry for key, entry in header.tensors.items() if key not in keys}
    if not rest:
        raise InvalidAdapter("the file has a head, but no coefficients of any layer", "file")
    return saved, num_labels, replace(header, tensors=rest)


def _own_metadata(header: Header) -> dict[str, Any]:
    """Return the JSON object that our own files carry in their header; empty for PEFT's."""
    raw = header.metadata.get(METADATA_KEY, "{}")
    try:
        own = parse_json(raw.encode())
    except ValueError as error:
        message = f"metadata {METADATA_KEY!r} is not JSON: {error}"
        raise InvalidAdapter(message, "__metadata__") from error
    sections = [own.get(name, {}) for name in ("base", "places")] if isinstance(own, dict) else []
    if not sections or not all(isinstance(section, dict) for section in sections):
        raise InvalidAdapter(f"metadata {METADATA_KEY!r} is malformed", "__metadata__")
    return dict(own)


def _check_fingerprint(own: Mapping[str, Any], base: BaseSpec) -> bool:
    """Return whether the file itself says that it was made for this base."""
    if "base" not in own:
        return False
    claimed = own["base"].get("fingerprint")
    if claimed != base.fingerprint:
        raise BaseMismatch(
            f"the file was made for base {str(own['base'].get('name'))[:80]!r} with fingerprint "
            f"{str(claimed)[:80]}; this base is {base.name!r} with {base.fingerprint}",
            "file",
        )
    return True


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


def _sorted_out(
    header: Header, base: BaseSpec, kind: type[Method]
) -> tuple[dict[str, TensorEntry], dict[str, dict[str, TensorEntry]]]:
    """Return what layers share by key, and target -> tensor name -> entry, in the base's order."""
    found: defaultdict[str, dict[str, TensorEntry]] = defaultdict(dict)
    shared, unused = {}, []
    for key, entry in header.tensors.items():
        target, name = split_key(key, base)
        if target is not None:
            found[target][name] = entry
        elif key.removeprefix(SHARED_PREFIX).startswith(kind.shared_prefixes or ("\0",)):
            shared[key.removeprefix(SHARED_PREFIX)] = entry
        else:
            unused.append(key)
    refuse_unknown(unused, base)
    return shared, {target: found[target] for target in base.layers if target in found}


def _keys(method: Method, target: str, base: BaseSpec) -> dict[str, tuple[str, TensorSpec]]:
    """Return name -> key and spec of every tensor that the layer's method needs."""
    specs = method.tensors(base.layers[target])
    return {name: (key_of(target, name, spec), spec) for name, spec in specs.items()}


def _check_tensors(
    header: Header,
    keys: Mapping[str, Mapping[str, tuple[str, TensorSpec]]],
    shared: Mapping[str, TensorEntry],
    entries: Mapping[str, Mapping[str, TensorEntry]],
) -> None:
    """Hold the file's tensors against what the methods need, both ways."""
    expected = {key: spec for layer in keys.values() for key, spec in layer.values()}
    for key, spec in expected.items():
        entry = header.tensors.get(key)
        if entry is None:
            raise InvalidAdapter(f"{key} is missing; expected shape {list(spec.shape)}", key)
        if entry.shape != spec.shape:
            got, want = list(entry.shape), list(spec.shape)
            raise InvalidAdapter(f"{key} has shape {got}, expected {want} for this base", key)
        if entry.dtype.is_floating_point != spec.floating:
            raise InvalidAdapter(f"{key} has dtype {entry.dtype}", key)
    for target, names in entries.items():
        for name in names:
            key = PREFIX + f"{target}.{name}"
            if key not in expected:
                raise UnusedTensors(
                    f"{key} is no tensor of this method; it has {', '.join(keys[target])}", key
                )
    for name in shared:
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
