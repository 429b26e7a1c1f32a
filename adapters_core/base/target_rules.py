"""Whether the layers that an adapter's config names are ones that the base has and may give away.

PEFT leaves out silently what it does not find. A name that is found nowhere is a slip of whoever
wrote it, and an adapter on fewer layers than were asked for is not what was asked for.
"""

from adapters_core.base.spec import BaseSpec
from adapters_core.contract.peft_config import PeftConfig, is_all_linear
from adapters_core.errors import InvalidAdapter

_SHOWN = 12


def check_targets(config: PeftConfig, base: BaseSpec) -> None:
    """Refuse names of layers that the base does not have, or that no adapter may change.

    Args:
        config: whose `target_modules`, if it has any, must be a pattern or a list of names.
        base: with all of its layers.

    Raises:
        InvalidAdapter: `param` is `target_modules`.
    """
    rule = config.raw.get("target_modules")
    if rule is None or is_all_linear(rule):
        return
    found = [path for path in base.targets if config.selects(path)]
    lost = [path for path in base.left_out if config.selects(path)]
    if lost:
        raise InvalidAdapter(
            f"target_modules select {lost[0]} and {len(lost) - 1} more layers of base "
            f"{base.name!r} that no adapter may change: {base.left_out[lost[0]]}. "
            "Name the others, or all-linear",
            "target_modules",
        )
    unknown = [] if isinstance(rule, str) else [n for n in rule if not _is_in(n, base)]
    if unknown or not found:
        what = f"name {unknown[0][:80]!r}, which is" if unknown else "select"
        some = ", ".join(sorted({path.rpartition(".")[2] for path in base.targets})[:_SHOWN])
        raise InvalidAdapter(
            f"target_modules {what} no layer of base {base.name!r}; it has {some}", "target_modules"
        )


def _is_in(name: str, base: BaseSpec) -> bool:
    """Return whether a name is a layer's path or the end of one."""
    return any(path == name or path.endswith(f".{name}") for path in base.targets)
