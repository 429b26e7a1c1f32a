"""Tiny random GGUF files, made by the `gguf` package's own writer."""

from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize

_WIDTH, _INNER, _LAYERS, _HEADS, _KV_HEADS = 64, 96, 2, 4, 2
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_NORMAL, _CONTROL = 1, 3


def write_gguf(
    file: Path,
    *,
    architecture: str = "llama",
    template: str | None = TEMPLATE,
    tokenizer: bool = True,
    kind: GGMLQuantizationType = GGMLQuantizationType.Q8_0,
    more: dict[str, Any] | None = None,
) -> Path:
    """Write a Llama of two layers with an alphabet of bytes as its tokens; tied embeddings.

    Args:
        file: to write.
        architecture: that it claims.
        template: of its chats.
        tokenizer: whether it has one.
        kind: of its matrices' numbers; norms are float32.
        more: further values, numbers or texts.
    """
    tokens = [*_SPECIAL, *_byte_letters(), "th", "the"]
    writer = GGUFWriter(str(file), architecture)
    writer.add_context_length(256)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_INNER)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    if tokenizer:
        _add_tokenizer(writer, tokens, template)
    for key, value in (more or {}).items():
        add = writer.add_uint32 if isinstance(value, int) else writer.add_string
        add(key, value)
    for name, shape in _shapes(len(tokens)).items():
        _add_tensor(writer, name, shape, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _byte_letters() -> list[str]:
    """GPT-2's letter of each byte."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in shown else next(others)) for byte in range(256)]


def _add_tokenizer(writer: GGUFWriter, tokens: list[str], template: str | None) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([_CONTROL if token in _SPECIAL else _NORMAL for token in tokens])
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    if template is not None:
        writer.add_chat_template(template)


def _shapes(vocabulary: int) -> dict[str, tuple[int, ...]]:
    narrow = _WIDTH * _KV_HEADS // _HEADS
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (vocabulary, _WIDTH),
        "output_norm.weight": (_WIDTH,),
    }
    for layer in range(_LAYERS):
        shapes |= {
            f"blk.{layer}.attn_norm.weight": (_WIDTH,),
            f"blk.{layer}.ffn_norm.weight": (_WIDTH,),
            f"blk.{layer}.attn_q.weight": (_WIDTH, _WIDTH),
            f"blk.{layer}.attn_k.weight": (narrow, _WIDTH),
            f"blk.{layer}.attn_v.weight": (narrow, _WIDTH),
            f"blk.{layer}.attn_output.weight": (_WIDTH, _WIDTH),
            f"blk.{layer}.ffn_gate.weight": (_INNER, _WIDTH),
            f"blk.{layer}.ffn_up.weight": (_INNER, _WIDTH),
            f"blk.{layer}.ffn_down.weight": (_WIDTH, _INNER),
        }
    return shapes


def _add_tensor(
    writer: GGUFWriter, name: str, shape: tuple[int, ...], kind: GGMLQuantizationType
) -> None:
    chance = np.random.default_rng(sum(name.encode()))
    if len(shape) == 1:
        numbers = chance.integers(32, 96, shape) / 64  # that bfloat16 holds exactly
        writer.add_tensor(name, numbers.astype(np.float32))
        return
    numbers = (0.3 * chance.standard_normal(shape)).astype(np.float32)
    writer.add_tensor(name, quantize(numbers, kind), raw_dtype=kind)
