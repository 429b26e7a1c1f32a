"""Tiny random classifiers and embedders of any type of the installed transformers.

A config begins as its class makes it; fields that say how large or how deep a base is get a small
value, in its parts too. A type whose sizes depend on each other otherwise cannot be built here.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
    ViTImageProcessorPil,
)
from transformers.models.auto import modeling_auto

from server.base.kinds import Kind

#: Few ids: RoBERTa makes room for its padding among its positions.
CLS, PAD, SEP, MASK = range(4)
VOCABULARY = 260
MAX_LENGTH, IMAGE = 128, 32
WIDTH, HEADS, LAYERS, INNER = 64, 4, 2, 96
#: Field -> its small value; only fields that a config has are set.
_SMALL: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "embedding_size", "emb_dim"), WIDTH),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), LAYERS),
    **dict.fromkeys(("decoder_layers", "encoder_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), HEADS),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads"), HEADS),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "n_kv_heads"), 2),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "inner_dim", "d_ff"), INNER),
    **dict.fromkeys(("decoder_ffn_dim", "encoder_ffn_dim", "word_embed_proj_dim"), WIDTH),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 48),
    **dict.fromkeys(("head_dim", "attention_head_dim", "d_kv", "kv_channels"), WIDTH // HEADS),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token"), 2),
    "type_vocab_size": 2,
    "image_size": IMAGE,
    "patch_size": 8,
}
_CLASSES: dict[Kind, Any] = {
    "text classifier": AutoModelForSequenceClassification,
    "image classifier": AutoModelForImageClassification,
    "embedder": AutoModel,
}
_TEXTS: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": MAX_LENGTH + 2,
    "n_positions": MAX_LENGTH + 2,
    "pad_token_id": PAD,
    "bos_token_id": CLS,
    "eos_token_id": SEP,
    "cls_token_id": CLS,
    "sep_token_id": SEP,
    "mask_token_id": MASK,
    "decoder_start_token_id": CLS,
    "is_decoder": False,
}
#: Type -> fields that it wants beside those.
_OWN: dict[str, dict[str, Any]] = {
    "longformer": {"attention_window": [16, 16]},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_buckets": 13,
    },
}


def types_of(kind: Kind) -> list[str]:
    """Return the types of a kind that the installed transformers has.

    Embedders are the bodies of masked language models: what such bases are made of.
    """
    names: dict[Kind, Any] = {
        "text classifier": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        "image classifier": modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        "embedder": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    }
    return sorted(names[kind])


def tiny_encoder(kind: Kind, model_type: str) -> nn.Module:
    """Return a random base of a type, in float32.

    Raises:
        Exception: whatever transformers raises where these sizes do not fit together.
    """
    is_of_images = kind == "image classifier"
    config = _tiny(type(AutoConfig.for_model(model_type)), {} if is_of_images else _TEXTS)
    for name, value in _OWN.get(model_type, {}).items():
        setattr(config, name, value)
    for name, value in _TEXTS.items():  # what a config has by its class alone
        if not is_of_images and name.endswith("_token_id"):
            setattr(config, name, value)
    if kind != "embedder":
        config.num_labels = 3
    torch.manual_seed(0)
    made = _CLASSES[kind].from_config(config)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 1.2 / parameter.shape[-1] ** 0.5)
    model: nn.Module = made.eval()
    return model


def _tiny(kind: Any, given: Mapping[str, Any]) -> Any:
    """Return a small config of a class."""
    default = kind()
    fields = default.to_dict()
    small = {n: _fitted(n, fields[n], v) for n, v in {**_SMALL, **given}.items() if n in fields}
    small |= {n: _stages(n, v) for n, v in fields.items() if _is_staged(v) and n not in small}
    small = {n: value for n, value in small.items() if not n.startswith("out_")}
    for name in getattr(kind, "sub_configs", None) or ():
        inner = getattr(default, name, None)
        if inner is not None:
            small[name] = _tiny(type(inner), given).to_dict()
    return kind(**copy.deepcopy(small))


def _fitted(name: str, default: Any, small: Any) -> Any:
    """Return a small value, stage by stage where the config has it so."""
    return _stages(name, default) if _is_staged(default) else small


def _is_staged(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and type(value[0]) is int


def _stages(name: str, default: Sequence[int]) -> list[int]:
    count = len(default)
    if "depth" in name or "layers" in name:
        return [1] * count
    if "heads" in name:
        return [2] * count
    if "size" in name or "dim" in name or "channels" in name:
        return [16 * 2 ** min(i, 2) for i in range(count)]
    return list(default)


def reader(kind: Kind) -> Any:
    """Return what reads a base's inputs: one token a byte between [CLS] and [SEP], or pixels."""
    if kind == "image classifier":
        return ViTImageProcessorPil(size={"height": IMAGE, "width": IMAGE})
    words = ["[CLS]", "[PAD]", "[SEP]", "[MASK]", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        mask_token="[MASK]",
        model_max_length=MAX_LENGTH,
        model_input_names=["input_ids", "attention_mask"],
    )
