"""Put `AdaptedLinear` in place of a model's linears, and take it out again."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from torch import nn

from adapters_core.base import adaptable, changeable
from adapters_core.linear import AdaptedLinear, Switch


@dataclass(frozen=True)
class Injection:
    """A model whose linears listen to `switch`; `undo` gives the model back as it was."""

    model: nn.Module
    switch: Switch
    linears: dict[str, AdaptedLinear]

    def undo(self) -> None:
        """Put every base linear back; safe to call twice."""
        for path, linear in self.linears.items():
            _replace(self.model, path, linear.base)
        self.switch.plan = None


def inject(
    model: nn.Module, paths: Iterable[str] | None = None, kept: Collection[str] = ()
) -> Injection:
    """Wrap the linears at `paths` (default: all below the output layer).

    Args:
        model: whose linears are wrapped.
        paths: of them.
        kept: those that see only the rows whose logits are wanted.

    Raises:
        KeyError: a path is no adaptable linear of the model, or its output layer and not `kept`.
    """
    switch, linears = Switch(), dict(adaptable(model))
    linears |= {path: linear for path, linear in changeable(model).items() if path in kept}
    chosen = linears if paths is None else {path: linears[path] for path in paths}
    wrapped = {
        path: AdaptedLinear(linear, path, switch, path in kept) for path, linear in chosen.items()
    }
    for path, linear in wrapped.items():
        _replace(model, path, linear)
    return Injection(model, switch, wrapped)


def _replace(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
