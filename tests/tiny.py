"""Tiny bases of real shapes, a byte tokenizer, and adapters that PEFT itself has written."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    Llama4TextConfig,
    LlamaConfig,
    MistralConfig,
    ModernBertDecoderConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

VOCABULARY = 257
EOS = 256
MAX_LENGTH = 1024
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
#: Llama with grouped heads and a width that is no power of two, and its relatives.
SHAPES = ("llama", "qwen2", "qwen3", "mistral", "gpt2")


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token a byte, and an end."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {char: i for i, char in enumerate(alphabet)} | {"<eos>": EOS}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>", pad_token="<eos>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


def model(shape: str = "llama", seed: int = 0, **changes: Any) -> nn.Module:
    """Return a random causal LM in float32 whose likeliest token is clear."""
    torch.manual_seed(seed)
    made = AutoModelForCausalLM.from_config(_config(shape, changes), attn_implementation="sdpa")
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 1.2 / parameter.shape[-1] ** 0.5)
    made.generation_config.pad_token_id = EOS
    return made.eval()


def _config(shape: str, changes: dict[str, Any]) -> Any:
    ends = {"eos_token_id": EOS, "bos_token_id": EOS, "pad_token_id": EOS}
    if shape == "gpt2":
        sizes = {"n_embd": 96, "n_layer": 2, "n_head": 6, "n_positions": MAX_LENGTH}
        return GPT2Config(vocab_size=VOCABULARY, **(sizes | ends | changes))
    if shape == "modernbert-decoder":  # its head's dense sees only the rows that are sampled
        sizes = {"hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 2}
        sizes |= {"num_attention_heads": 6, "max_position_embeddings": MAX_LENGTH}
        own = {"local_attention": 32, "cls_token_id": EOS, "sep_token_id": EOS}
        return ModernBertDecoderConfig(vocab_size=VOCABULARY, **(sizes | ends | own | changes))
    sizes = {
        "hidden_size": 96,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": MAX_LENGTH,
    }
    experts = {"intermediate_size_mlp": 160, "num_local_experts": 4, "head_dim": 16}
    kinds = {
        "llama4": (Llama4TextConfig, experts),  # its routers have a forward of their own
        "llama": (LlamaConfig, {}),
        "qwen2": (Qwen2Config, {}),
        "qwen3": (Qwen3Config, {"head_dim": 24}),
        "mistral": (MistralConfig, {"sliding_window": 40}),
    }
    kind, own = kinds[shape]
    return kind(vocab_size=VOCABULARY, **(sizes | ends | own | changes))


def save_base(folder: Path, shape: str = "llama", seed: int = 0) -> Path:
    """Write a base as Hugging Face has it, and return its folder."""
    model(shape, seed).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
