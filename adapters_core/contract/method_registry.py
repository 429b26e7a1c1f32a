"""The table of methods that this build has."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from adapters_core.contract.method import Method
from adapters_core.errors import UnknownMethod

if TYPE_CHECKING:
    from adapters_core.contract.peft_config import PeftConfig


#: What a layer that is no linear is.
Site = Literal["embedding", "stack"]


@dataclass
class _Table:
    """The registered methods and their variants; the only module-level state of this package.

    Args:
        methods: by name.
        variants: what a method does on layers that are no linears, by name and site.
    """

    methods: dict[str, type[Method]] = field(default_factory=dict)
    variants: dict[tuple[str, "Site"], type[Method]] = field(default_factory=dict)


_TABLE = _Table()


def register(method: type[Method]) -> type[Method]:
    """Enter a method into the table; used as a class decorator.

    Raises:
        ValueError: its name is taken.
    """
    if method.name in _TABLE.methods:
        raise ValueError(f"{method.__name__}: a method is called {method.name!r} already")
    _TABLE.methods[method.name] = method
    return method


def register_variant(site: Site) -> Callable[[type[Method]], type[Method]]:
    """Return a class decorator: the class is what the method of its name does on such layers."""

    def enter(variant: type[Method]) -> type[Method]:
        _TABLE.variants[variant.name, site] = variant
        return variant

    return enter


def variant_of(method: type[Method], site: Site) -> type[Method] | None:
    """Return what a method does on such layers; None if it is not served there."""
    return _TABLE.variants.get((method.name, site))


def registered() -> dict[str, type[Method]]:
    """Return the methods of this build by name."""
    return dict(_TABLE.methods)


def for_config(config: "PeftConfig") -> type[Method]:
    """Return the method of adapters with this config.

    Raises:
        UnknownMethod: there is none; the message lists those that are known.
    """
    for method in _TABLE.methods.values():
        if method.reads(config):
            return method
    known = ", ".join(sorted({m.peft_type for m in _TABLE.methods.values()}))
    raise UnknownMethod(
        f"peft_type {config.peft_type!r} is not supported; supported: {known}", "peft_type"
    )
