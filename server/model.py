"""Load the resident base: any Hugging Face causal LM, from a folder or the hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from adapters_core.base import BaseSpec, spec_of


class BaseNotLoadable(Exception):
    """The base cannot be loaded; the message says what to do."""


@dataclass(frozen=True)
class Base:
    """The resident base and what the server must know of it.

    Args:
        max_length: the most tokens a sequence may have.
        eos_ids: tokens that end an answer.
        kv_token_bytes: bytes of keys and values of one token over all layers.
    """

    model: nn.Module
    tokenizer: Any
    spec: BaseSpec
    max_length: int
    vocabulary: int
    eos_ids: frozenset[int]
    kv_token_bytes: int


def load_base(source: str, name: str | None, device: str, dtype: str) -> Base:
    """Load `source` (a folder or a hub id) for inference.

    Without a GPU `auto` means float32 on the CPU, with one bfloat16 on it. No code that comes with
    a model is ever run.

    Raises:
        BaseNotLoadable: it is missing or not a causal LM.
    """
    chosen = torch.device(_device(device))
    disable_progress_bar()
    kind = _dtype(dtype, chosen)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = AutoModelForCausalLM.from_pretrained(source, dtype=kind, attn_implementation="sdpa")
    except (OSError, ValueError, KeyError) as error:
        raise BaseNotLoadable(
            f"base {source!r} cannot be loaded: {error}. Give a folder with config.json, "
            "model.safetensors and tokenizer.json, or a hub id that this machine can reach"
        ) from error
    return make_base(nn.Module.to(model, chosen), tokenizer, name or Path(source).name)


def make_base(model: nn.Module, tokenizer: Any, name: str) -> Base:
    """Return the base around a model that is in memory."""
    model.eval().requires_grad_(False)
    config: Any = model.config
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    item = next(model.parameters()).element_size()
    return Base(
        model=model,
        tokenizer=tokenizer,
        spec=spec_of(model, name),
        max_length=text.max_position_embeddings,
        vocabulary=text.vocab_size,
        eos_ids=_eos_ids(model, tokenizer),
        kv_token_bytes=2 * text.num_hidden_layers * heads * width * item,
    )


def _device(setting: str) -> str:
    if setting != "auto":
        return setting
    return "cuda" if torch.cuda.is_available() else "cpu"


def _dtype(setting: str, device: torch.device) -> torch.dtype:
    if setting == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    kind = getattr(torch, setting)
    assert isinstance(kind, torch.dtype)
    return kind


def _eos_ids(model: nn.Module, tokenizer: Any) -> frozenset[int]:
    generation: Any = getattr(model, "generation_config", None)
    given = getattr(generation, "eos_token_id", None)
    ids = given if isinstance(given, list) else [given]
    return frozenset(i for i in [*ids, tokenizer.eos_token_id] if i is not None)
