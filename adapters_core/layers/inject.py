"""Put adapted layers in place of a model's own, and take them out again."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from torch import nn

from adapters_core.base.spec import adaptable, changeable, input_embedding, stacks_of
from adapters_core.layers.experts import AdaptedExperts, AdaptedStack
from adapters_core.layers.linear import AdaptedEmbedding, AdaptedLinear, Switch


@dataclass(frozen=True)
class Injection:
    """A model whose layers ask the plan of `switch`; `undo` gives the model back as it was."""

    model: nn.Module
    switch: Switch
    linears: dict[str, AdaptedLinear]
    embeddings: dict[str, AdaptedEmbedding] = field(default_factory=dict)
    experts: dict[str, AdaptedExperts] = field(default_factory=dict)

    @property
    def layers(self) -> dict[str, AdaptedLinear | AdaptedEmbedding | AdaptedStack]:
        """Return path -> layer of all that an adapter may have a merged weight of."""
        stacks = [stack for module in self.experts.values() for stack in module.stacks.items()]
        return {**self.linears, **self.embeddings, **dict(stacks)}

    @property
    def _wrappers(self) -> dict[str, AdaptedLinear | AdaptedEmbedding | AdaptedExperts]:
        return {**self.linears, **self.embeddings, **self.experts}

    def undo(self) -> None:
        """Put every layer of the base back; safe to call twice."""
        for path, layer in reversed(self._wrappers.items()):
            _replace(self.model, path, layer.base)
        self.switch.plan = None


def inject(
    model: nn.Module, paths: Iterable[str] | None = None, kept: Collection[str] = ()
) -> Injection:
    """Wrap the layers at `paths` (default: the linears below the output layer).

    Args:
        model: to wrap layers of.
        paths: of linears, of the input embedding, and of parameters that are stacks of matrices.
        kept: those that see only the rows whose logits are wanted.

    Raises:
        KeyError: a path is none of these, or the output layer and not `kept`.
    """
    switch, linears = Switch(), dict(adaptable(model))
    linears |= {path: linear for path, linear in changeable(model).items() if path in kept}
    chosen = list(linears if paths is None else paths)
    embedding = input_embedding(model)
    embeddings = dict([embedding] if embedding and embedding[0] in chosen else [])
    stacks = stacks_of(model).keys() & set(chosen)
    modules = dict.fromkeys(path.rpartition(".")[0] for path in chosen if path in stacks)
    injection = Injection(
        model,
        switch,
        {
            path: AdaptedLinear(linears[path], path, switch, path in kept)
            for path in chosen
            if path not in embeddings and path not in stacks
        },
        {path: AdaptedEmbedding(one, path, switch) for path, one in embeddings.items()},
        {path: AdaptedExperts(model.get_submodule(path), path, switch) for path in modules},
    )
    for path, layer in injection._wrappers.items():
        _replace(model, path, layer)
    return injection


def _replace(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
