"""What a training job's config may say, field by field: heeded, without effect, or refused.

Serving and training read the same fields for different things: `lora_dropout` says nothing of the
numbers that an adapter computes, and much of how they are learned. So what serving passes over is
not passed over here: a field that training does not heed is refused, unless NEUTRAL says why any
value of it gives the same adapter. A test holds the classes against the installed PEFT's configs.
"""

from collections.abc import Mapping
from typing import Any, Literal

from adapters_core.contract.method import Method
from adapters_core.contract.method_registry import registered
from adapters_core.contract.peft_config import PeftConfig
from adapters_core.contract.peft_fields import is_one_of
from adapters_core.errors import InvalidAdapter
from adapters_core.format.training_layers import LAYER_FIELDS

#: Field -> why training gives the same adapter whatever it says.
NEUTRAL: Mapping[str, str] = {
    "auto_mapping": "names Python classes for PEFT's loader",
    "base_model_name_or_path": "the job's model is the base",
    "ensure_weight_tying": "of modules_to_save and trained tokens, which are refused",
    "fan_in_fan_out": "the base's layers say how their weights lie",
    "inference_mode": "a job trains, and the file that it writes is for inference",
    "init_v_bound": "of init_weights = 'uniform', which is refused",
    "megatron_core": "of megatron_config, which is refused",
    "peft_version": "says which program wrote the config",
    "progressbar": "display only",
    "qalora_group_size": "of use_qalora, which is refused",
    "revision": "the job's model is the base",
    "runtime_config": "where numbers are kept, not which",
    "runtime_offload_base_weight": "where numbers are kept, not which",
}
#: Field -> the only values that training heeds, and what to do about others.
_ONLY: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "bias": (("none",), "biases are not trained; leave it out"),
    "init_weights": ((True,), "coefficients start where the update is zero; leave it out"),
    "modules_to_save": (([],), "a classifier's head is trained without it; leave it out"),
}
#: Fields that are trained only when they are off; null, false and empty are off.
_REFUSED = frozenset(
    (
        *("alora_invocation_tokens", "arrow_config", "corda_config", "eva_config", "kasa_config"),
        *("layer_replication", "loftq_config", "lora_bias", "lora_ga_config", "megatron_config"),
        *("monteclora_config", "target_parameters", "trainable_token_indices", "use_bdlora"),
        *("use_qalora", "velora_config"),
    )
)
#: Field -> the one whose default it takes the place of.
_REPLACES = {"entry_seed": "random_loc_seed"}
#: Factors of the update: with zero nothing could be learned.
_FACTORS = ("lora_alpha", "scaling", "d_initial")

Class = Literal["heeded", "neutral", "refused"]


def class_of(kind: type[Method], name: str) -> Class | None:
    """Return what training makes of a field of the method's config; None: no such field."""
    if name in LAYER_FIELDS or name in ("peft_type", "task_type", kind.dropout_field):
        return "heeded"
    if name in NEUTRAL:
        return "neutral"
    if name in kind.training_only or name in _ONLY or name in _REFUSED:
        return "refused"
    return "heeded" if name in kind.peft_fields else None


def job_config(kind: type[Method], own: Mapping[str, Any], task_type: str | None) -> PeftConfig:
    """Return a job's config with the method's defaults, after refusing what is not heeded.

    Values that the method itself refuses are found when `kind.from_peft` reads them.

    Args:
        kind: the job's method.
        own: the job's own fields; one that is null is as if it were not there.
        task_type: PEFT's name of the job's task; None where it has none.

    Raises:
        InvalidAdapter: a field is not heeded, or the config is another method's; `param` names
            the field.
    """
    given = {name: value for name, value in own.items() if value is not None}
    raw = {"peft_type": kind.peft_type} | kind().to_peft()
    raw |= {other: None for name, other in _REPLACES.items() if name in given}
    config = PeftConfig(raw | given)
    _check_kind(kind, given, config)
    for name, value in given.items():
        _check_field(kind, name, value)
    if given.get("task_type") not in (None, task_type):
        message = f"task_type = {given['task_type']!r}, but the job's task is {task_type or 'none'}"
        raise InvalidAdapter(message + " in PEFT's words; leave it out", "task_type")
    dropout_of(kind, given)
    return config


def dropout_of(kind: type[Method], config: Mapping[str, Any]) -> float:
    """Return the share of a layer's inputs that the update does not see at a training step.

    Raises:
        InvalidAdapter: it is no number from 0 and below 1.
    """
    name = kind.dropout_field
    value = None if name is None else config.get(name)
    if name is None or value is None:
        return 0.0
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value < 1:
        raise InvalidAdapter(f"{name} = {value!r} is no number from 0 and below 1", name)
    return float(value)


def _check_kind(kind: type[Method], own: Mapping[str, Any], config: PeftConfig) -> None:
    """Refuse a config that is another method's; it says so by peft_type or use_dora."""
    if kind.reads(config):
        return
    param = "use_dora" if config.peft_type.upper() == kind.peft_type else "peft_type"
    others = [other.name for other in registered().values() if other.reads(config)]
    of = f"is method {others[0]!r}" if others else "is no method that is known"
    raise InvalidAdapter(
        f"{param} = {own.get(param)!r} {of}, but the job's method is {kind.name!r}; leave {param} "
        "out, or name the other method",
        param,
    )


def _check_field(kind: type[Method], name: str, value: Any) -> None:
    shown = f"{name} = {_short(value)}"
    if name in kind.training_only and not is_one_of(value, kind.training_only[name]):
        allowed = " or ".join(repr(one) for one in kind.training_only[name])
        raise InvalidAdapter(f"{shown} is not heeded in training; {allowed} is", name)
    if name in kind.training_only:
        return
    if name in _ONLY and not is_one_of(value, _ONLY[name][0]):
        raise InvalidAdapter(f"{shown} is not heeded in training: {_ONLY[name][1]}", name)
    if name in _REFUSED and value:
        raise InvalidAdapter(f"{shown} is not heeded in training; leave it out", name)
    if class_of(kind, name) is None and not _is_off(value):
        raise InvalidAdapter(f"{shown} is no field of method {kind.name!r}", name)
    values = [value, *(value.values() if isinstance(value, dict) else ())]
    if name.removesuffix("_pattern") in (*_FACTORS, "alpha") and any(
        one == 0 and not isinstance(one, bool) for one in values
    ):
        raise InvalidAdapter(f"{shown}: nothing is learned behind a factor of zero", name)


def _is_off(value: Any) -> bool:
    return value is False or (isinstance(value, list | dict | str) and not value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
