"""FourierFT adapters as PEFT writes them, made without PEFT: quick, and easy to break."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from live import CONFIG, FILE, Files

PREFIX = "base_model.model."
TARGETS = tuple(f"model.layers.{i}.self_attn.{name}_proj" for i in (0, 1) for name in "qv")
N = 20


def key(target: str = TARGETS[0]) -> str:
    """Return the name of a layer's one tensor."""
    return f"{PREFIX}{target}.fourierft_spectrum"


def config(**changes: Any) -> dict[str, Any]:
    """Return PEFT's config; a change to None takes a field out."""
    fields = {
        "peft_type": "FOURIERFT",
        "n_frequency": N,
        "scaling": 150.0,
        "random_loc_seed": 777,
        "target_modules": ["q_proj", "v_proj"],
        "task_type": "CAUSAL_LM",
        **changes,
    }
    return {name: value for name, value in fields.items() if value is not None}


def tensors(seed: int = 0) -> dict[str, Tensor]:
    """Return coefficients that change the tiny base's answers."""
    generator = torch.Generator().manual_seed(seed)
    return {key(target): torch.randn(N, generator=generator) for target in TARGETS}


def files(
    seed: int = 0, *, changed: Mapping[str, Tensor | None] | None = None, **config_changes: Any
) -> Files:
    """Return an adapter's files; `changed` replaces tensors, or with None takes them out."""
    held = {**tensors(seed), **(changed or {})}
    content = save({name: tensor for name, tensor in held.items() if tensor is not None})
    return {FILE: content, CONFIG: json.dumps(config(**config_changes)).encode()}
