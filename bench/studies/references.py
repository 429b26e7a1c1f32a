"""References for the trainer's methods: the head alone, all weights, PEFT's own, LoCA at rest."""

import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from adapters_core.methods import LoCA
from trainer.base import LoadedBase
from trainer.tasks.task import TrainingTask
from trainer.training.trainable import Tracked, TrainableAdapter


@contextmanager
def fixed_places() -> Iterator[None]:
    """While the block runs, LoCA's positions stay, and every step is one of the spectrum."""
    learned = LoCA.training_schedule

    def spectrum_alone(self: LoCA, step: int, num_steps: int) -> Collection[str]:
        return {"loca_spectrum"}

    LoCA.training_schedule = spectrum_alone  # type: ignore[method-assign]
    try:
        yield
    finally:
        LoCA.training_schedule = learned  # type: ignore[method-assign]


class _NoPlan:
    """A plan without a schedule of its own and without a term in the loss."""

    def freeze_scheduled(self, step: int, num_steps: int) -> None:
        """Freeze nothing."""

    def regulariser(self) -> Tensor | None:
        """Return none."""
        return None


class Reference(TrainableAdapter):
    """Trains something else than an adapter of ours; the base is changed.

    Args:
        base: of a process that does nothing else.
        task: says how large the head is.
        seed: draws the head, and PEFT's adapter.
        kind: `head`, `full` or `peft`.
        config: of PEFT, with `peft_type`.
    """

    plan: Any

    def __init__(
        self, base: LoadedBase, task: TrainingTask, seed: int, kind: str, config: Mapping[str, Any]
    ) -> None:
        self.base, self.task, self.plan = base, task, _NoPlan()
        torch.manual_seed(seed)
        head = _new_head(base, task)
        self._model = base.model
        if kind == "peft":
            self._model = _with_peft(base.model, config)
        if kind == "full":
            self._model.requires_grad_(True)
        for parameter in head:
            parameter.requires_grad_(True)
        self._own = {id(parameter) for parameter in head}

    @property
    def model(self) -> nn.Module:
        """Return the model as it is trained."""
        return self._model

    def tensors(self) -> list[Tracked]:
        """Return what is trained."""
        return [
            Tracked(name, "head" if id(tensor) in self._own else "coefficients", 1.0, tensor)
            for name, tensor in self._model.named_parameters()
            if tensor.requires_grad
        ]

    @property
    def num_coefficients(self) -> int:
        """Return how many numbers are trained, the head's apart."""
        return sum(one.tensor.numel() for one in self.tensors() if one.role != "head")

    @property
    def num_head(self) -> int:
        """Return how many numbers the head has."""
        return sum(one.tensor.numel() for one in self.tensors() if one.role == "head")


def _new_head(base: LoadedBase, task: TrainingTask) -> list[nn.Parameter]:
    """Put a fresh linear in the place of the base's own head and return its parameters."""
    if base.spec.head is None or task.num_outputs is None:
        return []
    path = min(base.spec.head.label_rows).rpartition(".")[0]
    before = base.model.get_submodule(path)
    assert isinstance(before, nn.Linear)
    head = nn.Linear(before.in_features, task.num_outputs)
    nn.init.normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    parent, _, name = path.rpartition(".")
    setattr(base.model.get_submodule(parent), name, head)
    config: Any = base.model.config
    config.num_labels = task.num_outputs
    return list(head.parameters())


def _with_peft(model: nn.Module, config: Mapping[str, Any]) -> nn.Module:
    from peft import get_peft_config, get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks for what transformers will drop
        made: nn.Module = get_peft_model(model, get_peft_config(dict(config)))
    return made
