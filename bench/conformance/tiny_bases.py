"""Tiny random bases of any causal-LM type of the installed transformers.

A config begins as its class makes it; then every field that says how large or how deep the base is
gets a small value, in its parts (text, vision, audio) too. Further fields of some types are in
`_OWN`. A type whose sizes depend on each other in another way cannot be built here: `not built`.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY = 257
EOS = 256
MAX_LENGTH = 512
WIDTH, HEADS, KV_HEADS, HEAD_DIM, LAYERS, INNER = 64, 4, 2, 16, 2, 96

#: Field -> its small value; only fields that a config has are set.
_SMALL: dict[str, Any] = {
    **dict.fromkeys(("vocab_size",), VOCABULARY),
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "embedding_size", "emb_dim", "word_embed_proj_dim"),
        WIDTH,
    ),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "depth"), LAYERS),
    **dict.fromkeys(("decoder_layers", "encoder_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), HEADS),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads"), HEADS),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "n_kv_heads"), KV_HEADS),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", "inner_dim", "d_ff"), INNER
    ),
    **dict.fromkeys(("decoder_ffn_dim", "encoder_ffn_dim", "dense_intermediate_size"), INNER),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 48),
    **dict.fromkeys(("head_dim", "attention_head_dim", "kv_channels"), HEAD_DIM),
    **dict.fromkeys(
        ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length"), MAX_LENGTH
    ),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_k"), 2),
    **dict.fromkeys(("n_shared_experts", "num_shared_experts"), 1),
    **dict.fromkeys(("n_group", "topk_group"), 1),
    "first_k_dense_replace": 1,
    "rotary_dim": 8,
    "type_vocab_size": 2,
    "is_decoder": True,  # else BERT and similar types attend to later tokens
    "use_cache": True,
    "image_size": 32,
    "patch_size": 8,
}
#: Of bases whose keys and values come from a narrow shared vector (DeepSeek's attention).
_LATENT: dict[str, Any] = {
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "num_key_value_heads": HEADS,
    "head_dim": 8,
}
_SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
#: Type -> fields that it wants beside those.
_OWN: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "olmo_hybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "xmod": {"default_language": "en_XX"},
    "zaya": {"num_experts_per_tok": 1},
    "dbrx": {
        "attn_config": {"kv_n_heads": KV_HEADS, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": INNER, "moe_num_experts": 4, "moe_top_k": 2},
    },
}


def causal_types() -> list[str]:
    """Return every type that `AutoModelForCausalLM` knows."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny_config(model_type: str, **changes: Any) -> Any:
    """Return a small config of a type.

    Raises:
        Exception: whatever its class raises where these sizes do not fit together.
    """
    kind = type(AutoConfig.for_model(model_type))
    return _made(kind, {**_OWN.get(model_type, {}), **changes})


def _made(kind: Any, own: Mapping[str, Any]) -> Any:
    default = kind()
    names = _fields(default)
    sizes = _SMALL | (_LATENT if "qk_rope_head_dim" in names else {})
    small = {name: value for name, value in sizes.items() if name in names}
    small |= {name: EOS for name in _SPECIAL if isinstance(getattr(default, name, None), int)}
    for name in getattr(kind, "sub_configs", None) or ():
        inner = getattr(default, name, None)
        if inner is not None:
            fields = own.get(name, {})
            small[name] = _made(type(inner), fields).to_dict()
    per_layer = {
        name: value[:LAYERS]
        for name, value in default.to_dict().items()
        if isinstance(value, list) and len(value) == getattr(default, "num_hidden_layers", None)
    }
    return kind(**{**copy.deepcopy(per_layer), **small, **own})


def _fields(config: Any) -> set[str]:
    return set(config.to_dict()) - {"model_type"}


def tiny_model(model_type: str, seed: int = 0, **changes: Any) -> nn.Module:
    """Return a random causal LM of a type, in float32."""
    config = tiny_config(model_type, **changes)
    torch.manual_seed(seed)
    made = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 1.2 / parameter.shape[-1] ** 0.5)
    return made.eval()
