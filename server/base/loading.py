"""Load the resident base, from a folder or the hub, and determine its kind.

A causal LM generates; a text classifier, an image classifier and an embedder answer in one forward
pass (server/encoding). The kind comes from config.json, or from the setting `task`.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import nn
from transformers import AutoConfig

from adapters_core.base.causal_probe import CausalTargets, Keep
from adapters_core.base.loading import (
    device_of,
    dtype_of,
    freeze_causal_lm,
    freeze_encoder,
    load_model,
)
from adapters_core.base.spec import BaseSpec
from adapters_core.base.whole_files import max_positions
from adapters_core.starting import CannotStart, check_base, check_device
from adapters_core.tokens.ends import end_ids
from server.base.kinds import Kind, ServingTask, kind_of
from server.base.kv_bytes import kv_token_bytes
from server.base.load_errors import BaseNotLoadable, words_for
from server.base.pooling import Pooling, has_modules_file, pooling_of
from server.base.room import NoRoom, check_fits
from server.base.starts import Starts

_TARGETS = TypeAdapter(CausalTargets)


@dataclass(frozen=True)
class Base:
    """The resident base and its facts.

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
    source: str,
    name: str | None,
    device: str,
    dtype: str,
    task: ServingTask = "auto",
    starts: Starts | None = None,
) -> Base:
    """Load `source` (a folder or a hub id) for inference.

    Without a GPU `auto` means float32 on the CPU, with one bfloat16 on it, or float16 if it has no
    bfloat16. No code that comes with a model is ever run. What `starts` has kept of a causal LM is
    not found out again.

    Raises:
        BaseNotLoadable: it is missing, of no kind that is served, or too large for the device.
    """
    try:
        check_base(source)
        check_device(device)
    except CannotStart as error:
        raise BaseNotLoadable(str(error)) from error
    chosen = device_of(device)
    called = name or Path(source).name
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        kind = kind_of(config, task, has_modules_file(source))
        loaded = load_model(source, kind, _dtype(dtype, chosen))
        check_fits(sum(p.nbytes for p in loaded.model.parameters()), chosen)
        model = nn.Module.to(loaded.model, chosen)
        if kind == "causal LM":
            return make_base(model, loaded.reader, called, starts)
        pooling = pooling_of(source) if kind == "embedder" else None
        return make_encoder(model, loaded.reader, called, kind, pooling, loaded.untrained)
    except NoRoom:
        raise
    except Exception as error:  # whatever a library raises over files of any origin
        raise BaseNotLoadable(words_for(source, error)) from error


def _dtype(setting: str, device: torch.device) -> torch.dtype:
    """Return the weights' dtype; NVIDIA's GPUs before Ampere have no bfloat16."""
    is_nvidia = device.type == "cuda" and torch.version.hip is None
    if setting == "auto" and is_nvidia and torch.cuda.get_device_capability(device) < (8, 0):
        return torch.float16
    return dtype_of(setting, device)


def make_base(model: nn.Module, tokenizer: Any, name: str, starts: Starts | None = None) -> Base:
    """Return the base around a causal LM that is in memory.

    Raises:
        ValueError: its tokenizer or its config lacks what serving needs.
    """
    config: Any = model.config
    text = config.get_text_config()
    longest = max_positions(text, tokenizer)
    return Base(
        model=model,
        tokenizer=tokenizer,
        spec=freeze_causal_lm(model, tokenizer, name, longest, _keep(starts, model, longest)),
        max_length=longest,
        vocabulary=text.vocab_size,
        eos_ids=end_ids(model, tokenizer),
        kv_token_bytes=kv_token_bytes(text, next(model.parameters()).element_size()),
    )


def _keep(starts: Starts | None, model: nn.Module, max_length: int) -> Keep:
    """Return what asks earlier starts which layers of a causal LM adapters may change."""

    def keep(spec: BaseSpec, run: Callable[[], CausalTargets]) -> CausalTargets:
        if starts is None:
            return run()
        findings = starts.findings_of(model, spec, max_length)
        return findings.found("finding out which layers adapters may change", _TARGETS, run)

    return keep


def make_encoder(
    model: nn.Module,
    reader: Any,
    name: str,
    kind: Kind,
    pooling: Pooling | None = None,
    untrained: Collection[str] = (),
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
    most = None if pooling is None else pooling.preparation.max_length
    spec, length = freeze_encoder(model, reader, name, kind, untrained, most)
    if kind == "image classifier":
        return Base(model, None, spec, length, 0, frozenset(), 0, kind, reader)
    config: Any = model.config
    vocabulary = config.get_text_config().vocab_size
    return Base(model, reader, spec, length, vocabulary, frozenset(), 0, kind, pooling=pooling)
