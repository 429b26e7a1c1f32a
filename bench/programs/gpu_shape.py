"""The shape of the base that is measured and counted on the way of a GPU."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig


@dataclass(frozen=True)
class Sizes:
    """A base's shape, where it stands, and how large the bank of `GpuBase.fill` is."""

    device: torch.device
    dtype: torch.dtype
    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    bank_bytes: int
    n: int
    rank: int


def of_llama_8b() -> Sizes:
    """Return Llama-3.1-8B's shape, on the GPU."""
    device = torch.device("cuda")
    return Sizes(
        device, torch.bfloat16, 4096, 14336, 32, 32, 8, 128256, 16_000_000_000, n=1000, rank=16
    )


def of_nothing_much() -> Sizes:
    """Return a small shape, on the CPU."""
    device = torch.device("cpu")
    return Sizes(device, torch.float32, 64, 96, 2, 4, 2, 8192, 100_000, n=20, rank=2)


def random_llama(sizes: Sizes) -> nn.Module:
    """Return a base with random weights, made where it stands."""
    config = LlamaConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.width,
        intermediate_size=sizes.inner,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
    )
    config.eos_token_id = config.bos_token_id = None
    config.pad_token_id = 0
    torch.manual_seed(0)
    with sizes.device:
        made: nn.Module = AutoModelForCausalLM.from_config(
            config, attn_implementation="sdpa", dtype=sizes.dtype
        )
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 1.2 / parameter.shape[-1] ** 0.5)
    return made.eval().requires_grad_(False)
