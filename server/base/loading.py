"""Load the resident base, from a folder or the hub, and say what kind of base it is.

A causal LM generates; a text classifier, an image classifier and an embedder answer in one forward
pass (server/encoding). The kind comes from config.json, or from the setting `task`.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from transformers.utils.logging import disable_progress_bar

from adapters_core.base import BaseSpec, spec_of
from adapters_core.causal_probe import with_causal_targets
from adapters_core.encoder_probe import probed_images, probed_texts
from adapters_core.heads import clear_untrained, head_spec_of
from adapters_core.loaded import load_whole, longest_text, max_positions
from adapters_core.reading.backend import check_generates
from adapters_core.reading.ends import end_ids
from adapters_core.rotations import border_of
from adapters_core.starting import CannotStart, check_base, check_device
from server.base.kinds import Kind, ServingTask, kind_of
from server.base.kv_bytes import kv_token_bytes
from server.base.pooling import Pooling, has_modules_file, pooling_of
from server.base.words import BaseNotLoadable, words_for

_CLASSES: dict[Kind, Any] = {
    "text classifier": AutoModelForSequenceClassification,
    "image classifier": AutoModelForImageClassification,
    "embedder": AutoModel,
}


@dataclass(frozen=True)
class Base:
    """The resident base and what the server must know of it.

    Args:
        tokenizer: of a base that reads text.
        max_length: the most tokens a sequence may have.
        eos_ids: tokens that end an answer.
        kv_token_bytes: bytes of keys and values of one token over all layers.
        kind: what the base is for.
        images: transformers' image processor of a base that reads images.
        pooling: how an embedder makes one vector of many.
    """

    model: nn.Module
    tokenizer: Any
    spec: BaseSpec
    max_length: int
    vocabulary: int
    eos_ids: frozenset[int]
    kv_token_bytes: int
    kind: Kind = "causal LM"
    images: Any = None
    pooling: Pooling | None = None


def load_base(
    source: str, name: str | None, device: str, dtype: str, task: ServingTask = "auto"
) -> Base:
    """Load `source` (a folder or a hub id) for inference.

    Without a GPU `auto` means float32 on the CPU, with one bfloat16 on it. No code that comes with
    a model is ever run.

    Raises:
        BaseNotLoadable: it is missing, or of no kind that is served.
    """
    try:
        check_base(source)
        check_device(device)
    except CannotStart as error:
        raise BaseNotLoadable(str(error)) from error
    chosen = torch.device(_device(device))
    disable_progress_bar()
    number_type = _dtype(dtype, chosen)
    called = name or Path(source).name
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        kind = kind_of(config, task, has_modules_file(source))
        if kind != "causal LM":
            return _load_encoder(source, called, kind, chosen, number_type)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        model = load_whole(AutoModelForCausalLM, source, dtype=number_type)
        return make_base(nn.Module.to(model, chosen), tokenizer, called)
    except Exception as error:  # whatever a library raises over files of any origin
        raise BaseNotLoadable(words_for(source, error)) from error


def make_base(model: nn.Module, tokenizer: Any, name: str) -> Base:
    """Return the base around a causal LM that is in memory.

    Raises:
        ValueError: its tokenizer, or what its config says of lengths, is not enough to serve it.
    """
    check_generates(tokenizer)
    border_of(model)  # more than one is refused
    model.eval().requires_grad_(False)
    config: Any = model.config
    text = config.get_text_config()
    longest = max_positions(text, tokenizer)
    item_bytes = next(model.parameters()).element_size()
    return Base(
        model=model,
        tokenizer=tokenizer,
        spec=with_causal_targets(spec_of(model, name), model, longest),
        max_length=longest,
        vocabulary=text.vocab_size,
        eos_ids=end_ids(model, tokenizer),
        kv_token_bytes=kv_token_bytes(text, item_bytes),
    )


def _load_encoder(
    source: str, name: str, kind: Kind, device: torch.device, dtype: torch.dtype
) -> Base:
    """Load a base that answers in one forward pass."""
    reads_images = kind == "image classifier"
    reader = (AutoImageProcessor if reads_images else AutoTokenizer).from_pretrained(
        source, trust_remote_code=False
    )
    model, info = _CLASSES[kind].from_pretrained(
        source, dtype=dtype, trust_remote_code=False, output_loading_info=True
    )
    untrained = sorted(info["missing_keys"])
    _refuse_missing_body(model, untrained, kind)
    clear_untrained(model, untrained)
    pooling = pooling_of(source) if kind == "embedder" else None
    model = nn.Module.to(model, device)
    return make_encoder(model, reader, name, kind, pooling, untrained)


def make_encoder(
    model: nn.Module,
    reader: Any,
    name: str,
    kind: Kind,
    pooling: Pooling | None = None,
    untrained: list[str] | None = None,
) -> Base:
    """Return the base around a classifier or an embedder that is in memory.

    Args:
        model: in the dtype and on the device where it is to compute.
        reader: its tokenizer, or its image processor.
        name: what requests call it.
        kind: what it is for.
        pooling: of an embedder.
        untrained: parameters that its files had no values for.

    Raises:
        ValueError: a classifier without a head, or a tokenizer without padding.
    """
    model.eval().requires_grad_(False)
    spec = spec_of(model, name)
    if kind != "embedder":
        spec = replace(spec, head=head_spec_of(model, untrained or ()))
    if kind == "image classifier":
        spec = probed_images(spec, model, reader)
        return Base(model, None, spec, 1, 0, frozenset(), 0, kind, reader)
    config: Any = model.config
    if config.pad_token_id is None:
        config.pad_token_id = reader.pad_token_id
    if config.pad_token_id is None:
        raise ValueError("neither config.json nor the tokenizer has a pad_token_id")
    length = longest_text(model, reader)
    if pooling is not None and pooling.preparation.max_length is not None:
        length = min(length, pooling.preparation.max_length)
    spec = probed_texts(spec, model, reader, length)
    vocabulary = config.get_text_config().vocab_size
    return Base(model, reader, spec, length, vocabulary, frozenset(), 0, kind, pooling=pooling)


def _refuse_missing_body(model: nn.Module, missing: list[str], kind: Kind) -> None:
    """Refuse a base whose files lack more than a head, or a pooler that nothing here reads."""
    if kind == "embedder":
        lost = [name for name in missing if not name.startswith("pooler.")]
    else:
        body = str(model.base_model_prefix)
        lost = [name for name in missing if name.partition(".")[0] == body]
    if lost:
        raise ValueError(f"its files have no values for {', '.join(lost[:3])}")


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
