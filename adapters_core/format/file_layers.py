"""Which layers a coefficient file changes, what its config says of them, and their methods."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adapters_core.base.spec import BaseSpec
from adapters_core.contract.layer import FileView
from adapters_core.contract.method import Method
from adapters_core.contract.method_registry import Site, variant_of
from adapters_core.contract.peft_config import PeftConfig, is_all_linear
from adapters_core.contract.peft_fields import MERGE
from adapters_core.contract.safetensors_header import TensorEntry
from adapters_core.errors import InvalidAdapter
from adapters_core.format.replaced import FIELDS as REPLACING_FIELDS
from adapters_core.format.stack_keys import FIELD as STACKS_FIELD
from adapters_core.format.stack_keys import chosen_stacks
from adapters_core.format.tying import check_pair, tied_to

_SHOWN = 5
#: Fields of the config that are read for a base with a head.
_HEAD_FIELDS = ("modules_to_save", "id2label")


def fields_of(kind: type[Method], base: BaseSpec) -> Iterable[str]:
    """Return the config's fields that are read for this base, beside those of all adapters."""
    stacks = (STACKS_FIELD,) if variant_of(kind, "stack") else ()
    return (*(_HEAD_FIELDS if base.head else REPLACING_FIELDS), *stacks)


@dataclass(frozen=True)
class FileParts:
    """What a file has for its method: target -> tensors, what layers share, and our metadata."""

    layers: Mapping[str, Mapping[str, TensorEntry]]
    shared: Mapping[str, TensorEntry]
    own: Mapping[str, Any]


def methods_of_file(
    config: PeftConfig, kind: type[Method], file: FileParts, base: BaseSpec
) -> dict[str, Method]:
    """Return target -> method: of linears by the method itself, of other layers by its variants."""
    found = {t: {n: e.shape for n, e in file.layers[t].items()} for t in file.layers}
    others = base.lookups.keys() | base.stacks.keys()
    linears = {t: shapes for t, shapes in found.items() if t not in others}
    shared = {key: entry.shape for key, entry in file.shared.items()}
    methods = kind.of_file(FileView(config, base.targets, linears, shared, file.own))
    for target in found:
        if target in base.lookups:
            methods[target] = _variant(kind, "embedding").from_peft(config, target, found[target])
        elif target in base.stacks:
            method = _variant(kind, "stack").from_peft(config, target, found[target])
            methods[target] = method.of_stack(base.stacks[target])
    return {target: methods[target] for target in found}  # in the base's order


def _variant(kind: type[Method], site: Site) -> type[Method]:
    variant = variant_of(kind, site)
    assert variant is not None  # refused before
    return variant


def check_layers(kind: type[Method], found: Iterable[str], base: BaseSpec) -> None:
    """Refuse an embedding or output layer that the method does not change as PEFT does.

    Raises:
        InvalidAdapter: `param` is the layer's path.
    """
    for target in found:
        served = kind.on_outputs if target in base.outputs else True
        if target in base.lookups:
            served = variant_of(kind, "embedding") is not None
        if not served:
            what = "the input embedding" if target in base.lookups else "the output layer"
            message = f"{target}: {kind.name} of {what} is not served; {MERGE}"
            raise InvalidAdapter(message, target)


def check_targets(
    config: PeftConfig, found: Mapping[str, Any], base: BaseSpec, saved: Sequence[str] = ()
) -> None:
    """Check that file and config speak of the same layers.

    Args:
        config: of the adapter.
        found: the layers in the file, without those that the adapter replaces.
        base: the adapter's.
        saved: parameters of a head of its own, whose layers are not adapted.

    Raises:
        InvalidAdapter: a layer stands in one of them alone.
    """
    chosen = chosen_stacks(config, base)
    _hold(chosen, chosen, [target for target in found if target in base.stacks])
    found = {target: names for target, names in found.items() if target not in base.stacks}
    in_head = {name.rpartition(".")[0] for name in saved}
    for target in found.keys() & in_head:
        more = ", ".join(list(found[target])[:_SHOWN])
        message = f"{target} is replaced by the head, but the file has more for it: {more}"
        raise InvalidAdapter(message, target)
    takes_all = is_all_linear(_rule(config, found))  # of a base with more linears, perhaps
    layers = base.targets if takes_all else base.layers
    free = [t for t in layers if t not in in_head and t not in base.stacks]
    selected = [t for t in free if any(config.selects(one) for one in tied_to(t, config, base))]
    check_pair(found, config, base)
    _hold(selected, () if takes_all else selected, found)


def _hold(selected: Sequence[str], needed: Iterable[str], found: Iterable[str]) -> None:
    """Hold the layers that a config selects against those in the file, both ways."""
    found = list(found)
    for target in needed:
        if target not in found:
            message = f"the config adapts {target}, but the file has no tensor for it"
            raise InvalidAdapter(message, target)
    for target in found:
        if target not in selected:
            message = f"the file has tensors for {target}, which the config does not adapt"
            raise InvalidAdapter(message, target)


def _rule(config: PeftConfig, found: Mapping[str, Any]) -> object:
    """Return the config's `target_modules`, once it is sure that PEFT reads it as we do."""
    rule = config.raw.get("target_modules")
    if not rule and found:
        names = json.dumps(sorted({target.rpartition(".")[2] for target in found}))
        raise InvalidAdapter(
            f"target_modules = {json.dumps(rule)} names no layer: PEFT would take its defaults for "
            f"this model, or refuse it. The file has tensors for {names[:400]}: write these",
            "target_modules",
        )
    if isinstance(rule, str) and config.raw.get("layers_to_transform") is not None:
        raise InvalidAdapter(
            "layers_to_transform says nothing beside a target_modules that is a pattern; name the "
            "layers in the pattern",
            "layers_to_transform",
        )
    return rule
