"""Each method's settings where a job gives none: the papers' values, scaled to this base.

One step of AdamW moves a coefficient by about its learning rate, and so the weight by the rate
times the norm of one atom, |d delta / d coefficient|. The papers' settings agree in this product,
not in the rate: FourierFT's atom at scale a is a / sqrt(2 M N), which is 0.05 at scale
300 on a 4096 x 4096 layer and 0.8 on a 256 x 256 one. So a preset holds the product (`step`), and
the scale follows from the base's width; if a job gives the scale, the rate follows instead. The
presets themselves are in trainer/training/preset_values.py.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import adapters_core.methods  # noqa: F401  (registers the methods)
from adapters_core.base.spec import BaseSpec
from adapters_core.contract.layer import Shape
from adapters_core.contract.method import Method
from adapters_core.contract.method_registry import registered
from adapters_core.errors import AdapterError
from adapters_core.format.training_config import dropout_of, job_config
from adapters_core.format.training_layers import trained_layers
from adapters_core.layers.training_plan import laid_out
from registry.jobs.spec import Hyperparameters
from trainer.errors import InvalidHyperparameter, InvalidMethod
from trainer.training.preset_values import CANDIDATES, PLAIN, PRESETS, Preset

__all__ = ["CANDIDATES", "MAX_RATE", "Rates", "Setting", "setting_of"]

#: No learning rate is larger.
MAX_RATE = 1e6


@dataclass(frozen=True)
class Rates:
    """AdamW's peak rates, by the role of a tensor; `positions` are learned positions."""

    coefficients: float
    positions: float
    head: float

    def of(self, role: str) -> float:
        """Return the rate of a role."""
        return float(getattr(self, role))


@dataclass(frozen=True)
class Setting:
    """A method with its rates, checked for a base.

    Args:
        methods: target -> method of the config, in the base's order; all of one kind.
        rates: of AdamW.
        dropout: the share of a layer's inputs that a step's update leaves out.
        is_preset: whether the coefficients' rate is the preset's.
    """

    methods: Mapping[str, Method]
    rates: Rates
    dropout: float = 0.0
    is_preset: bool = True

    @property
    def method(self) -> Method:
        """Return the method of most layers."""
        each = list(self.methods.values())
        return max(each, key=each.count)

    @property
    def targets(self) -> list[str]:
        """Return the paths of the layers, in the base's order."""
        return list(self.methods)

    @property
    def training_fields(self) -> dict[str, Any]:
        """Return the config's fields that only training uses."""
        name = self.method.dropout_field
        return {} if name is None or not self.dropout else {name: self.dropout}


def setting_of(
    name: str,
    config: Mapping[str, Any],
    hyper: Hyperparameters,
    base: BaseSpec,
    task_type: str | None = None,
) -> Setting:
    """Return a job's methods and rates: its own values, or else the preset's.

    Args:
        name: of a registered method.
        config: fields of adapter_config.json.
        hyper: of the job.
        base: that is trained on.
        task_type: PEFT's name of the job's task, which the config may contain.

    Raises:
        InvalidMethod: no such method, or a field is refused; `param` names it.
        InvalidHyperparameter: a rate is not a positive number.
    """
    kinds = registered()
    if name not in kinds:
        known = ", ".join(sorted(kinds))
        raise InvalidMethod(f"method {name[:80]!r} is not known; give one of {known}", "method")
    kind, preset = kinds[name], PRESETS.get(name, PLAIN)
    own = dict(preset.config) | {k: v for k, v in config.items() if v is not None}
    try:
        targets = trained_layers(job_config(kind, _json(config), task_type), base)
        shapes = {target: base.targets[target] for target in targets}
        shape = max(shapes.values(), key=lambda s: s.out * s.in_)
        methods = _methods(kind, own, targets, task_type)
        step = preset.step_on(shape, _counts(methods, shapes))
        if step is not None and own.get(preset.scale) is None:
            own[preset.scale] = float(f"{step / (preset.rate * preset.atom(shape)):.4g}")
            methods = _methods(kind, own, targets, task_type)
    except AdapterError as error:
        raise InvalidMethod(error.message, error.param) from error
    rate = preset.rate
    if step is not None:
        rate = step / (abs(float(own[preset.scale])) * preset.atom(shape))
    is_preset = hyper.learning_rate is None and hyper.learning_rate_multiplier == 1.0
    rates = _rates(preset, rate, hyper)
    return Setting(methods, rates, dropout_of(kind, own), is_preset)


def _methods(
    kind: type[Method], own: Mapping[str, Any], targets: Sequence[str], task_type: str | None
) -> dict[str, Method]:
    """Return target -> its method as a job's config has it."""
    given = job_config(kind, own, task_type)
    return {target: kind.from_peft(given, target, {}) for target in targets}


def _counts(methods: Mapping[str, Method], shapes: Mapping[str, Shape]) -> list[int]:
    """Return how many numbers of each layer are trained.

    Raises:
        InvalidAdapter: methods do not fit a layer, or one config cannot describe them.
    """
    fitted = laid_out(methods, shapes)
    counts = list[int]()
    for target, own in fitted.items():
        tensors = own.tensors(shapes[target]).values()
        counts.append(sum(math.prod(one.shape) for one in tensors if one.trained))
    type(next(iter(fitted.values()))).config_of(fitted)
    return counts


def _json(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a config, checked to be JSON."""
    try:
        json.dumps(config)
    except (TypeError, ValueError) as error:
        raise InvalidMethod(f"the method's config is not JSON: {error}", "method_config") from error
    return config


def _rates(preset: Preset, rate: float, hyper: Hyperparameters) -> Rates:
    given = {
        "learning_rate": hyper.learning_rate,
        "learning_rate_multiplier": hyper.learning_rate_multiplier,
        "head_learning_rate": hyper.head_learning_rate,
        "location_learning_rate": hyper.location_learning_rate,
    }
    for name, value in given.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (is_number and 0 < value <= MAX_RATE):
            message = f"{name} = {value!r}: a number above 0 and up to {MAX_RATE:g} is needed"
            raise InvalidHyperparameter(message, name)
    own = rate * hyper.learning_rate_multiplier
    return Rates(
        coefficients=own if hyper.learning_rate is None else hyper.learning_rate,
        positions=preset.positions_rate
        if hyper.location_learning_rate is None
        else hyper.location_learning_rate,
        head=preset.head_rate if hyper.head_learning_rate is None else hyper.head_learning_rate,
    )
