"""The base and the adapters that all benchmarks share: random weights of a real shape."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from adapters_core.base.spec import BaseSpec
from adapters_core.contract.layer import Shape
from adapters_core.contract.method import Method
from adapters_core.format.write import write_adapter
from adapters_core.layers.basis_cache import BasisCache

VOCABULARY = 8192
#: Which linears of every layer -> how their paths end.
ENDINGS = {
    "qv": ["q_proj", "v_proj"],
    "seven": [f"{end}_proj" for end in ("q", "k", "v", "o", "gate", "up", "down")],
}


def llama(width: int = 1024, layers: int = 8, vocabulary: int = VOCABULARY) -> nn.Module:
    """Return a random float32 Llama: 64-wide heads, a quarter of them for keys and values."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=max(1, width // 256),
        max_position_embeddings=2048,
    )
    config.eos_token_id = config.bos_token_id = None
    config.pad_token_id = 0
    made: nn.Module = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 1.2 / parameter.shape[-1] ** 0.5)
    return made.eval().requires_grad_(False)


def tokenizer(vocabulary: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token a byte, and made-up words for all other ids."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = alphabet + [f"<{i}>" for i in range(len(alphabet), vocabulary)]
    made = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made)


def save_llama(folder: Path, width: int, layers: int) -> Path:
    """Write the same base as a server loads it, and return its folder."""
    disable_progress_bar()
    llama(width, layers).save_pretrained(folder)  # type: ignore[operator]
    tokenizer().save_pretrained(folder)
    return folder


def targets_of(spec: BaseSpec, which: str) -> list[str]:
    """Return the paths of `qv` or of all `seven` linears of every layer."""
    return [t for t in spec.targets if t.endswith(tuple(ENDINGS[which]))]


def random_adapter(
    method: Method, shapes: Mapping[str, Shape], bases: BasisCache, seed: int
) -> tuple[dict[str, Method], dict[str, dict[str, torch.Tensor]]]:
    """Return method and random coefficients of every layer; what layers share, they share."""
    methods, layers = method.of_layers(shapes), {}
    generator = torch.Generator().manual_seed(seed)
    shared: dict[str, torch.Tensor] = {}
    for target, shape in shapes.items():
        own = methods[target]
        layer = own.init(shape, generator, bases.get(own, shape, target))
        for name, spec in own.tensors(shape).items():
            if spec.floating and spec.trained:
                layer[name] = layer[name] + torch.randn(spec.shape, generator=generator)
            if spec.shared is not None:
                layer[name] = shared.setdefault(spec.shared, layer[name])
        layers[target] = layer
    return methods, layers


def write_many(
    folder: Path, method: Method, spec: BaseSpec, targets: list[str], count: int
) -> list[Path]:
    """Write `count` adapters as PEFT's folders and return them."""
    folders = [folder / f"adapter-{i}" for i in range(count)]
    shapes, bases = {t: spec.targets[t] for t in targets}, BasisCache(torch.device("cpu"))
    for i, place in enumerate(folders):
        write_adapter(place, *random_adapter(method, shapes, bases, i), spec)
    return folders


def prompt_of(number: int, length: int, vocabulary: int = VOCABULARY) -> list[int]:
    """Return a random prompt."""
    generator = torch.Generator().manual_seed(number)
    ids: Any = torch.randint(1, vocabulary, (length,), generator=generator).tolist()
    return ids
