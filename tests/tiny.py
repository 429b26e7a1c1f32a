"""Tiny bases of real shapes, a byte tokenizer, and adapters that PEFT itself has written."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CodeGenConfig,
    FalconConfig,
    Gemma2Config,
    GPT2Config,
    GPTJConfig,
    GPTNeoConfig,
    GptOssConfig,
    Llama4TextConfig,
    LlamaConfig,
    MistralConfig,
    ModernBertDecoderConfig,
    MptConfig,
    Phi3Config,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2MoeConfig,
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
#: Soft caps, sinks, chunks, and windows that only a mask knows; each shorter than two pages.
MASKED_SHAPES = ("gemma2", "gpt_oss", "llama4", "qwen2_moe")
#: Attention code of their own, most of them with distances added to the scores (ALiBi).
OWN_SHAPES = ("bloom", "mpt", "falcon", "falcon_alibi", "gptj", "gpt_neo", "codegen")


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
    made = AutoModelForCausalLM.from_config(_config(shape, changes))
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() in (2, 3):  # an expert's weights are slices of three dimensions
                parameter.normal_(0, 1.2 / parameter.shape[-1] ** 0.5)
        for name, parameter in made.named_parameters():
            if name.endswith("sinks"):
                parameter.normal_(0, 2)
    made.generation_config.pad_token_id = EOS
    return made.eval()


_KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, {}),
    "qwen2": (Qwen2Config, {}),
    "qwen3": (Qwen3Config, {"head_dim": 24}),
    "mistral": (MistralConfig, {"sliding_window": 40}),
    "gemma2": (
        Gemma2Config,
        {
            "head_dim": 16,
            "tie_word_embeddings": False,  # else the likeliest token is the last one again
            "sliding_window": 40,
            "query_pre_attn_scalar": 8,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 8.0,
        },
    ),
    "gpt_oss": (
        GptOssConfig,
        {
            "head_dim": 16,
            "sliding_window": 40,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
    ),
    "llama4": (
        Llama4TextConfig,
        {
            "head_dim": 16,
            "attention_chunk_size": 40,
            "no_rope_layers": [1, 0],
            "intermediate_size_mlp": 160,
            "num_local_experts": 4,  # its routers have a forward of their own
        },
    ),
    "qwen2_moe": (
        Qwen2MoeConfig,
        {
            "sliding_window": 40,
            "use_sliding_window": True,
            "max_window_layers": 1,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 64,
            "shared_expert_intermediate_size": 64,
        },
    ),
    "modernbert-decoder": (  # its head's dense sees only the rows that are sampled
        ModernBertDecoderConfig,
        {"local_attention": 32, "cls_token_id": EOS, "sep_token_id": EOS},
    ),
    "phi3": (
        Phi3Config,
        {
            "original_max_position_embeddings": 48,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": [1.0 + 0.1 * i for i in range(8)],
                "long_factor": [2.0 + 0.5 * i for i in range(8)],
                "original_max_position_embeddings": 48,
            },
        },
    ),
}
_LEARNED: dict[str, Any] = {"n_embd": 96, "n_layer": 2, "n_head": 6, "n_positions": MAX_LENGTH}
_FALCON = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 6}
#: Configs with other names for their sizes.
_OTHERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "gpt2": (GPT2Config, _LEARNED),
    "gptj": (GPTJConfig, _LEARNED | {"rotary_dim": 8}),
    "codegen": (CodeGenConfig, _LEARNED | {"n_head": 4, "rotary_dim": 8, "n_ctx": MAX_LENGTH}),
    "gpt_neo": (
        GPTNeoConfig,
        {
            "hidden_size": 96,
            "num_layers": 2,
            "num_heads": 6,
            "max_position_embeddings": MAX_LENGTH,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 40,
        },
    ),
    "bloom": (
        BloomConfig,
        {"hidden_size": 96, "n_layer": 2, "n_head": 6, "seq_length": MAX_LENGTH},
    ),
    "mpt": (MptConfig, {"d_model": 96, "n_layers": 2, "n_heads": 6, "max_seq_len": MAX_LENGTH}),
    "falcon": (FalconConfig, _FALCON),
    "falcon_alibi": (FalconConfig, _FALCON | {"alibi": True, "multi_query": False}),
}


def _config(shape: str, changes: dict[str, Any]) -> Any:
    ends = {"eos_token_id": EOS, "bos_token_id": EOS, "pad_token_id": EOS}
    if shape in _OTHERS:
        kind, own = _OTHERS[shape]
        return kind(vocab_size=VOCABULARY, **(own | ends | changes))
    sizes = {
        "hidden_size": 96,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": MAX_LENGTH,
    }
    kind, own = _KINDS[shape]
    return kind(vocab_size=VOCABULARY, **(sizes | ends | own | changes))


def save_base(folder: Path, shape: str = "llama", seed: int = 0) -> Path:
    """Write a base as Hugging Face has it, and return its folder."""
    model(shape, seed).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
