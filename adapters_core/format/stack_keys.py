"""Keys of updates of parameters (`target_parameters`), as the reader has them for every layer.

PEFT wraps a module once for each parameter that is adapted, in the module's order: the last is the
outermost, and inner ones stand behind `base_layer` in its keys (tuners/tuners_utils.py,
_inject_parameters). Here the parameter's own path stands before the tensor's name.
"""

from collections import defaultdict
from dataclasses import replace
from typing import Any

from adapters_core.base.spec import BaseSpec
from adapters_core.contract.peft_config import PeftConfig
from adapters_core.contract.peft_fields import MERGE
from adapters_core.contract.safetensors_header import Header
from adapters_core.errors import InvalidAdapter
from adapters_core.format.keys import PREFIX, is_named

FIELD = "target_parameters"


def chosen_stacks(config: PeftConfig, base: BaseSpec) -> list[str]:
    """Return the parameters that the config adapts, in the base's order.

    Raises:
        InvalidAdapter: the field is malformed, or names what is no stack of matrices.
    """
    listed = config.raw.get(FIELD) or []
    if not isinstance(listed, list) or not all(isinstance(name, str) and name for name in listed):
        raise InvalidAdapter(f"{FIELD} is not a list of names", FIELD)
    for name in listed:
        if not any(is_named(path, name) for path in base.stacks):
            raise InvalidAdapter(
                f"{FIELD} names {name[:80]!r}, which is no stack of matrices that an adapter of "
                f"base {base.name!r} can change ({_known(base)}); {MERGE}",
                FIELD,
            )
    return [path for path in base.stacks if any(is_named(path, name) for name in listed)]


def with_stack_keys(header: Header, stacks: list[str]) -> Header:
    """Return the header with the parameters' own paths in the keys of their tensors."""
    modules: defaultdict[str, list[str]] = defaultdict(list)
    for path in stacks:
        modules[path.rpartition(".")[0]].append(path)
    renames = {}
    for module, paths in modules.items():
        for depth, path in enumerate(reversed(paths)):
            for factor in ("lora_A", "lora_B"):
                inner = f"{module}.{'base_layer.' * depth}{factor}.weight"
                renames[PREFIX + inner] = f"{PREFIX}{path}.{factor}.weight"
    tensors = {renames.get(key, key): entry for key, entry in header.tensors.items()}
    return replace(header, tensors=tensors)


def _known(base: BaseSpec) -> str:
    names: dict[str, Any] = {".".join(path.split(".")[-2:]): None for path in base.stacks}
    return ", ".join(names) or "it has none"
