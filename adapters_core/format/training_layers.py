"""Which layers of a base a training job's config chooses.

As in PEFT, with two differences: a rule that chooses nothing is refused, and where the job names no
layers the choice is made here, since PEFT's own table of defaults is not complete.
"""

from collections.abc import Sequence
from typing import Any

from adapters_core.base.spec import BaseSpec
from adapters_core.base.target_rules import check_targets
from adapters_core.contract.peft_config import PeftConfig, is_all_linear
from adapters_core.errors import InvalidAdapter

#: Fields that choose layers.
LAYER_FIELDS = frozenset(
    {"target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"}
)
#: Ends of the paths that are adapted where a job does not say: query and value, or their like.
_USUAL = (
    ("q_proj", "v_proj"),
    ("query", "value"),
    ("q_lin", "v_lin"),
    ("q", "v"),
    ("attn.c_attn",),
    ("query_key_value",),
    ("qkv_proj",),
    ("Wqkv",),
)


def trained_layers(config: PeftConfig, base: BaseSpec) -> list[str]:
    """Return the paths of the layers that are trained, in the base's order; never none.

    Args:
        config: of the job; a missing `target_modules` means query and value, or their like, or
            all that there are.
        base: with all of its layers; those of its head are never chosen.

    Raises:
        InvalidAdapter: a field is malformed, or chooses no layer; `param` names it.
    """
    found = _named(config.raw.get("target_modules"), base)
    found = _not_excluded(config.raw.get("exclude_modules"), found, base)
    return _in_chosen_blocks(config.raw, found, base)


def _named(rule: Any, base: BaseSpec) -> list[str]:
    in_head = {name.rpartition(".")[0] for name in (base.head.parameters if base.head else ())}
    free = [path for path in base.targets if path not in in_head]
    # What all inputs of a batch share is trained where it is named: such adapters go alone.
    usual = [path for path in free if path not in base.shared]
    if rule is None:
        return _usual(usual)
    if is_all_linear(rule):
        return usual
    if not rule or not isinstance(rule, str | list):
        message = f"target_modules = {rule!r} names no layer; leave it out for query and value, "
        raise InvalidAdapter(message + "or say all-linear", "target_modules")
    named = PeftConfig({"target_modules": rule})
    check_targets(named, base)
    found = [path for path in free if named.selects(path)]
    if not found:
        some = ", ".join(sorted({path.rpartition(".")[2] for path in free})[:12])
        message = f"target_modules select no layer of base {base.name!r}; it has {some}"
        raise InvalidAdapter(message, "target_modules")
    return found


def _usual(free: list[str]) -> list[str]:
    for names in _USUAL:
        found = [path for path in free if path.endswith(tuple(f".{name}" for name in names))]
        if found:
            return found
    return free


def _not_excluded(rule: Any, found: list[str], base: BaseSpec) -> list[str]:
    if rule is None or rule == []:
        return found
    each = rule if isinstance(rule, list) else [rule]
    every = {"target_modules": list(base.targets)}
    for one in each:
        alone = PeftConfig(every | {"exclude_modules": one if isinstance(rule, str) else [one]})
        if all(alone.selects(path) for path in base.targets):
            raise InvalidAdapter(
                f"exclude_modules = {one!r} excludes no layer of base {base.name!r} that an "
                "adapter may change; leave it out",
                "exclude_modules",
            )
    whole = PeftConfig(every | {"exclude_modules": rule})
    left = [path for path in found if whole.selects(path)]
    if not left:
        raise InvalidAdapter(
            f"exclude_modules = {rule!r} leaves none of the {len(found)} chosen layers",
            "exclude_modules",
        )
    return left


def _in_chosen_blocks(raw: dict[str, Any], found: list[str], base: BaseSpec) -> list[str]:
    """Return the layers of the blocks in `layers_to_transform`, each of which must have some."""
    given = raw.get("layers_to_transform")
    if given is None or given == []:
        if raw.get("layers_pattern"):
            message = f"layers_pattern = {raw['layers_pattern']!r} needs layers_to_transform"
            raise InvalidAdapter(message, "layers_pattern")
        return found
    _check_blocks(given, raw.get("target_modules"), base)
    blocks: Sequence[int] = given if isinstance(given, list) else [given]
    chosen = {block: set(_in_blocks(raw, found, [block])) for block in blocks}
    empty = [block for block, paths in chosen.items() if not paths]
    if empty:
        raise InvalidAdapter(
            f"layers_to_transform = {given!r}: none of the {len(found)} chosen layers of base "
            f"{base.name!r} is in block {empty[0]}",
            "layers_to_transform",
        )
    return [path for path in found if any(path in paths for paths in chosen.values())]


def _check_blocks(given: Any, rule: Any, base: BaseSpec) -> None:
    numbers = given if isinstance(given, list) else [given]
    if any(isinstance(one, bool) or not isinstance(one, int) or one < 0 for one in numbers):
        message = f"layers_to_transform = {given!r} is neither a block's number nor a list of them"
        raise InvalidAdapter(message, "layers_to_transform")
    named = [rule] if isinstance(rule, str) and not is_all_linear(rule) else []
    named += [one for one in rule if one in base.targets] if isinstance(rule, list) else []
    if named:
        raise InvalidAdapter(
            f"layers_to_transform = {given!r} does not go with target_modules = {named[0]!r}, "
            "which is a pattern or a whole path and chooses the blocks itself",
            "layers_to_transform",
        )


def _in_blocks(raw: dict[str, Any], paths: list[str], blocks: list[int]) -> list[str]:
    # A rule that is a layer's whole path would choose it in any block.
    ends = sorted({path.rpartition(".")[2] for path in paths} - set(paths))
    rule = {"target_modules": ends, "layers_to_transform": blocks}
    config = PeftConfig(rule | {"layers_pattern": raw.get("layers_pattern")})
    return [path for path in paths if config.selects(path)]
