"""What each field of PEFT's configs means for an adapter that is served.

A field is read (by the reader for all methods, or by a method: its `peft_fields`), or neutral (no
value of it changes what the file's numbers compute), or refused unless it is off. A test walks the
installed PEFT's config classes: a field that stands in none of these fails it.

Neutral is said of serving alone: training heeds dropout and initial values.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

#: The way out of everything that is more than an update of linears.
MERGE = "merge it into the base with PEFT's merge_and_unload and serve the result as a base"

#: Fields that the reader itself looks at, whatever the method.
READ = frozenset(
    {
        *("peft_type", "task_type", "target_modules", "exclude_modules"),
        *("layers_to_transform", "layers_pattern", "ensure_weight_tying"),
    }
)

_ABOUT = "describes the file or how PEFT loads it"
_START = "chooses coefficients that training started from; the file holds those it ended with"
_DROPOUT = "is off in inference"

#: Field -> why no value of it changes what is computed from the file.
NEUTRAL: Mapping[str, str] = MappingProxyType(
    {
        "auto_mapping": _ABOUT,
        "base_model_class": _ABOUT,
        "base_model_name_or_path": _ABOUT,
        "inference_mode": _ABOUT,
        "library": _ABOUT,
        "parent_library": _ABOUT,
        "peft_version": _ABOUT,
        "revision": _ABOUT,
        "convert_pissa_to_lora": "was done when the file was saved, or init_lora_weights says not",
        "corda_config": "belongs to init_lora_weights = corda, which is refused itself",
        "ephemeral_gpu_offload": "is where PEFT computes, not what",
        "eva_config": _START,
        "fan_in_fan_out": "is the base's layout, which the base itself tells",
        "frod_dropout": _DROPOUT,
        "init_v_bound": _START,
        "init_weights": _START,
        "loftq_config": "belongs to init_lora_weights = loftq, which is refused itself",
        "lora_dropout": _DROPOUT,
        "lora_ga_config": "belongs to init_lora_weights = lora_ga, which is refused itself",
        "megatron_core": "names a module of Megatron, used with megatron_config alone",
        "progressbar": "is shown, not computed",
        "qalora_group_size": "belongs to use_qalora, which is refused itself",
        "runtime_config": "is where PEFT computes, not what",
        "runtime_offload_base_weight": "is where PEFT computes, not what",
        "tinylora_dropout": _DROPOUT,
        "vera_dropout": _DROPOUT,
    }
)

#: Field -> what it does when it is on, and the way out.
REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "alora_invocation_tokens": "an update for part of a prompt alone is not served",
        "arrow_config": "a router over several adapters is not served; serve each of them",
        "bias": f"changed biases of the base are not served; {MERGE}",
        "kasa_config": "KaSA changes the base's own weights, so the file alone is not the adapter; "
        + MERGE,
        "layer_replication": "a base with repeated layers is another base; serve that one",
        "lora_bias": f"a bias beside lora_B is not served; {MERGE}",
        "megatron_config": "parallel layers of Megatron are not served",
        "modules_to_save": f"modules that the adapter replaces as a whole are not served; {MERGE}",
        "monteclora_config": "sampled perturbations beside lora_A are not served",
        "target_parameters": f"updates of parameters by this method are not served; {MERGE}",
        "trainable_token_indices": f"trained rows of an embedding are not served; {MERGE}",
        "use_bdlora": "block-diagonal factors are not served",
        "use_qalora": "QA-LoRA pools the layer's inputs, which is not served",
        "velora_config": "VeLoRA's file holds more than lora_A and lora_B; save it without",
    }
)

_INITS = (True, False, "gaussian", "kaiming_uniform", "xavier_uniform", "uniform")
#: Field -> the only values that are taken. PEFT refuses others, or they are refused above.
VALUES: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {
        "bias": ("none", None),
        "fan_in_fan_out": (True, False, None),
        "inference_mode": (True, False, None),
        "init_weights": (*_INITS, None),
    }
)


def is_one_of(value: Any, allowed: tuple[Any, ...]) -> bool:
    """Return whether `value` is one of `allowed`, where 1 is not true and 0 is not false."""
    return any(type(value) is type(other) and value == other for other in allowed)
