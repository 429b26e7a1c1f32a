"""A file's header and config, sorted by what they are of; no tensor is read yet."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from adapters_core.base.heads import check_head, check_task, saved_parameters
from adapters_core.base.spec import BaseSpec
from adapters_core.contract.method import Method
from adapters_core.contract.method_registry import for_config
from adapters_core.contract.peft_config import PeftConfig
from adapters_core.contract.safetensors_header import Header, TensorEntry
from adapters_core.errors import BaseMismatch, InvalidAdapter
from adapters_core.format.copies import without_copies
from adapters_core.format.file_layers import fields_of
from adapters_core.format.keys import (
    PREFIX,
    SHARED_PREFIX,
    plainly_spelled,
    refuse_unknown,
    split_key,
)
from adapters_core.format.replaced import replaced_by
from adapters_core.format.stack_keys import chosen_stacks, with_stack_keys
from adapters_core.strict_json import UnclearJson, strict_json

#: The metadata entry of our own files: JSON with the base's name and fingerprint.
METADATA_KEY = "overtone"


@dataclass(frozen=True)
class HeaderParts:
    """What an adapter's header and config say.

    Args:
        config: with the base's own paths.
        kind: its method.
        whole: the header, its keys as this reader spells them.
        counted: the same without copies of the base's tensors.
        layered: `counted` without the head's parameters: tensors of layers, and what they share.
        copies: key -> embedding of each copy; see format/copies.py.
        own: our metadata; empty in PEFT's files.
        is_verified: whether the file itself says that it was made for this base.
        saved: names of the head's parameters, if the adapter has a head of its own.
        num_labels: of that head; 0 without one.
        replaced: path -> method of the layers that the adapter replaces.
        shared: what layers share, by key.
        layers: target -> tensor name -> entry, in the base's order.
    """

    config: PeftConfig
    kind: type[Method]
    whole: Header
    counted: Header
    layered: Header
    copies: Mapping[str, str]
    own: Mapping[str, Any]
    is_verified: bool
    saved: Sequence[str]
    num_labels: int
    replaced: dict[str, Method]
    shared: Mapping[str, TensorEntry]
    layers: Mapping[str, Mapping[str, TensorEntry]]

    @property
    def adapted(self) -> dict[str, Mapping[str, TensorEntry]]:
        """Return the layers that the method changes."""
        return {t: names for t, names in self.layers.items() if t not in self.replaced}


def parts_of(header: Header, config_bytes: bytes, base: BaseSpec) -> HeaderParts:
    """Return the parts of an adapter's header and config.

    Raises:
        AdapterError: `param` names the field or key at fault.
    """
    config = PeftConfig.parse(config_bytes)
    kind = for_config(config)
    check_task(config, base.head, base.name)
    config.refuse_unread([*kind.peft_fields, *fields_of(kind, base)])
    whole, paths = plainly_spelled(header, base)
    config = config.of_paths(paths)
    whole = with_stack_keys(whole, chosen_stacks(config, base))
    replaced = replaced_by(config, base)
    own = _own_metadata(whole)
    is_verified = _check_fingerprint(own, base)
    counted, copies = without_copies(whole, base, replaced)
    saved, num_labels, layered = _without_head(config, counted, base)
    shared, layers = _sorted_out(layered, base, kind)
    return HeaderParts(
        config=config,
        kind=kind,
        whole=whole,
        counted=counted,
        layered=layered,
        copies=copies,
        own=own,
        is_verified=is_verified,
        saved=saved,
        num_labels=num_labels,
        replaced=replaced,
        shared=shared,
        layers=layers,
    )


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
        own = strict_json(raw, checks_values=False)
    except UnclearJson as error:
        message = f"metadata {METADATA_KEY!r} {error}"
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
