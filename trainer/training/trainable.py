"""A trainable adapter: a method's coefficients on a base's layers and, for labels, a head.

Training uses the linears of serving with another plan. `undo` restores the base's own head; the
base's weights are never written to.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adapters_core.base.heads import HeadSpec
from adapters_core.base.spec import weights_of
from adapters_core.format.write import write_adapter
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import inject
from adapters_core.layers.training_plan import TrainingPlan
from trainer.base import LoadedBase
from trainer.tasks.task import TrainingTask
from trainer.training.presets import Setting

_DEVIATION = 0.02


@dataclass(frozen=True)
class Tracked:
    """One tensor of a checkpoint; its learning rate is `rate` times that of its role."""

    name: str
    role: str
    rate: float
    tensor: nn.Parameter


class TrainableAdapter:
    """A base with fresh coefficients, ready to be trained.

    Args:
        base: changed until `undo`.
        setting: methods of the layers, and the dropout before them.
        task: with the number of the head's outputs, if it has a head.
        seed: draws the coefficients and the head.
        prepared: called after each layer with the number of prepared layers and of all.
        computed: told what is computed from the base's weights, and the share that is done.
    """

    def __init__(
        self,
        base: LoadedBase,
        setting: Setting,
        task: TrainingTask,
        seed: int,
        prepared: Callable[[int, int], None] = lambda done, count: None,
        computed: Callable[[str, float], None] = lambda name, share: None,
    ) -> None:
        self.base, self.task, self._setting = base, task, setting
        generator = torch.Generator().manual_seed(seed)
        self._weights = weights_of(base.model, base.spec, base.bases, report=computed)
        shapes = {target: base.spec.targets[target] for target in setting.targets}
        bases = BasisCache(base.device, self._weights)
        self.plan = TrainingPlan(
            setting.methods, shapes, bases, generator, setting.dropout, prepared
        )
        self.head = _Head(base, task.num_outputs, generator)
        self._injection = inject(base.model, setting.targets)
        self._injection.switch.plan = self.plan

    @property
    def model(self) -> nn.Module:
        """Return the model; it computes with the coefficients and the head."""
        return self.base.model

    def weight(self, path: str) -> Tensor:
        """Return a layer's weight in the base, `[out, in]`, as a view."""
        return self._weights.weight(path)

    def tensors(self) -> list[Tracked]:
        """Return all tensors of a checkpoint, always in the same order."""
        found = [
            Tracked(f"layer.{name}", spec.role, spec.rate, tensor)
            for name, spec, tensor in self.plan.named()
        ]
        head = self.head.parameters.items()
        return found + [Tracked(f"head.{name}", "head", 1.0, tensor) for name, tensor in head]

    def trained_tensors(self) -> list[Tracked]:
        """Return the tensors that the optimiser trains."""
        return [one for one in self.tensors() if one.tensor.requires_grad]

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """While the block runs, compute with the base alone, and the head as it is."""
        self._injection.switch.plan = None
        try:
            yield
        finally:
            self._injection.switch.plan = self.plan

    def write(self, folder: Path) -> None:
        """Write the adapter's two files."""
        write_adapter(
            folder,
            self.plan.methods,
            self.plan.exported(),
            self.base.spec,
            head=self.head.parameters,
            labels=self.task.labels,
            task_type=self.task.peft_task,
            training=self._setting.training_fields,
        )

    def undo(self) -> None:
        """Restore the base; safe to call twice."""
        self._injection.undo()
        self.head.undo()


class _Head:
    """The head's parameters, trained in float32, which replace the base's own until `undo`."""

    def __init__(
        self, base: LoadedBase, num_outputs: int | None, generator: torch.Generator
    ) -> None:
        self._model = base.model
        self._own: dict[str, nn.Parameter] = {}
        self.parameters: dict[str, nn.Parameter] = {}
        if base.spec.head is None or num_outputs is None:
            return
        fresh = _fresh_head(self._model, base.spec.head, num_outputs, generator)
        for name, tensor in fresh.items():
            self._own[name] = self._model.get_parameter(name)
            self.parameters[name] = nn.Parameter(tensor.to(base.device))
            self._put(name, self.parameters[name])

    def undo(self) -> None:
        for name, parameter in self._own.items():
            self._put(name, parameter)

    def _put(self, name: str, parameter: nn.Parameter) -> None:
        path, _, own = name.rpartition(".")
        setattr(self._model.get_submodule(path), own, parameter)


def _fresh_head(
    model: nn.Module, spec: HeadSpec, num_outputs: int, generator: torch.Generator
) -> Mapping[str, Tensor]:
    """Return the head's initial parameters: the base's values, if their shapes fit."""
    config: Any = model.config
    deviation = getattr(config, "initializer_range", None) or _DEVIATION
    fresh = {}
    for name, shape in spec.parameters.items():
        size = (num_outputs, *shape[1:]) if name in spec.label_rows else shape
        if name not in spec.untrained and size == shape:
            fresh[name] = model.get_parameter(name).detach().float().clone()
        elif len(size) == 1:
            is_norm = name.endswith("weight")
            fresh[name] = torch.ones(size) if is_norm else torch.zeros(size)
        else:
            fresh[name] = deviation * torch.randn(size, generator=generator)
    return fresh
