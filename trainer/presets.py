"""How each method is trained where a job does not say: the papers' settings, moved to this base.

One step of AdamW moves a coefficient by about its learning rate, and so the weight by the rate
times the norm of one atom, |d delta / d coefficient|. It is this product that the papers' settings
have in common, not the rate: FourierFT's atom at scale a is a / sqrt(2 M N), which is 0.05 at scale
300 on a 4096 x 4096 layer and 0.8 on a 256 x 256 one. So a preset holds the product (`step`), and
the scale follows from the base's width; where a job gives the scale, the rate follows instead. The
presets themselves are trainer/preset_values.py.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import adapters_core.methods  # noqa: F401  (registers the methods)
from adapters_core.base import BaseSpec
from adapters_core.errors import AdapterError
from adapters_core.layer import Shape
from adapters_core.method import Method
from adapters_core.peft_config import PeftConfig
from adapters_core.table import registered
from registry.job_spec import Hyperparameters
from trainer.errors import InvalidHyperparameter, InvalidMethod
from trainer.preset_values import CANDIDATES, PLAIN, PRESETS, Preset

__all__ = ["CANDIDATES", "MAX_RATE", "Rates", "Setting", "setting_of"]

#: Ends of the paths that are adapted where a job does not say: query and value, or their like.
_TARGETS = (
    ("q_proj", "v_proj"),
    ("query", "value"),
    ("q_lin", "v_lin"),
    ("q", "v"),
    ("attn.c_attn",),
    ("query_key_value",),
    ("qkv_proj",),
    ("Wqkv",),
)


#: No learning rate is larger.
MAX_RATE = 1e6


@dataclass(frozen=True)
class Rates:
    """AdamW's peak rates, by the role of what they move."""

    coefficients: float
    places: float
    head: float

    def of(self, role: str) -> float:
        """Return the rate of a role."""
        return float(getattr(self, role))


@dataclass(frozen=True)
class Setting:
    """A method ready to be trained.

    Args:
        method: of all layers.
        targets: paths of the layers, in the base's order.
        rates: of AdamW.
    """

    method: Method
    targets: list[str]
    rates: Rates


def setting_of(
    name: str, config: Mapping[str, Any], hyper: Hyperparameters, base: BaseSpec
) -> Setting:
    """Return what a job trains: its own words where it has some, else the preset's.

    Args:
        name: of a registered method.
        config: fields of adapter_config.json.
        hyper: of the job.
        base: that is trained on.

    Raises:
        InvalidMethod: no such method, or a field is refused; `param` names it.
        InvalidHyperparameter: a rate is no positive number.
    """
    kinds = registered()
    if name not in kinds:
        known = ", ".join(sorted(kinds))
        raise InvalidMethod(f"method {name[:80]!r} is not known; known: {known}", "method")
    preset = PRESETS.get(name, PLAIN)
    try:
        targets = _targets(config, base)
        shape = max((base.targets[target] for target in targets), key=lambda s: s.out * s.in_)
        own = _scaled(preset, config, shape)
        method = _method(kinds[name], own, targets, base)
    except AdapterError as error:
        raise InvalidMethod(error.message, error.param) from error
    rate = preset.rate
    step = preset.step_on(shape, own)
    if step is not None:
        scale = abs(float(own[preset.scale])) * preset.atom(shape)
        rate = step / scale if scale else preset.rate
    return Setting(method, targets, _rates(preset, rate, hyper))


def _scaled(preset: Preset, config: Mapping[str, Any], shape: Shape) -> dict[str, Any]:
    """Return the job's config over the preset's, with the scale that gives the preset's step."""
    own = dict(preset.config) | dict(config)
    step = preset.step_on(shape, own)
    if step is not None and own.get(preset.scale) is None:
        exact = step / (preset.rate * preset.atom(shape))
        own[preset.scale] = float(f"{exact:.4g}")
    return own


def _method(
    kind: type[Method], config: Mapping[str, Any], targets: list[str], base: BaseSpec
) -> Method:
    raw = {"peft_type": kind.peft_type} | kind().to_peft() | dict(config)
    given = PeftConfig.parse(_json(raw))
    if not kind.reads(given):
        raise InvalidMethod(f"the config is not one of method {kind.name}", "peft_type")
    given.refuse_unread(kind.peft_fields)
    made = {target: kind.from_peft(given, target, {}) for target in targets}
    method = made[targets[0]]
    if any(other.to_peft() != method.to_peft() for other in made.values()):
        field_name = next(iter(kind.pattern_fields.values()), "method_config")
        message = "layers that differ cannot be trained together; leave the patterns out"
        raise InvalidMethod(f"{field_name}: {message}", field_name)
    for target, own in method.of_layers({t: base.targets[t] for t in targets}).items():
        own.tensors(base.targets[target])  # does it fit the layer?
    return method


def _json(raw: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(raw).encode()
    except (TypeError, ValueError) as error:
        raise InvalidMethod(f"the method's config is not JSON: {error}", "method_config") from error


def _targets(config: Mapping[str, Any], base: BaseSpec) -> list[str]:
    """Return the layers that the config names, or query and value, or all that there are."""
    in_head = {name.rpartition(".")[0] for name in (base.head.parameters if base.head else ())}
    free = [path for path in base.targets if path not in in_head]
    rule = config.get("target_modules")
    if isinstance(rule, str) and rule.lower() == "all-linear":
        return free
    if rule is not None:
        given = PeftConfig(dict(config))
        found = [path for path in free if given.selects(path)]
        if not found:
            some = ", ".join(sorted({path.rpartition(".")[2] for path in free})[:12])
            message = f"target_modules select no layer of base {base.name!r}; it has {some}"
            raise InvalidMethod(message, "target_modules")
        return found
    for names in _TARGETS:
        found = [path for path in free if path.endswith(tuple(f".{name}" for name in names))]
        if found:
            return found
    return free


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
            message = f"{name} = {value!r} is no number above 0 and up to {MAX_RATE:g}"
            raise InvalidHyperparameter(message, name)
    own = rate * hyper.learning_rate_multiplier
    return Rates(
        coefficients=own if hyper.learning_rate is None else hyper.learning_rate,
        places=preset.places_rate
        if hyper.location_learning_rate is None
        else hyper.location_learning_rate,
        head=preset.head_rate if hyper.head_learning_rate is None else hyper.head_learning_rate,
    )
