"""Load a base from a folder or the hub, and check it: serving and training use the same code.

A causal LM's files must be exactly the weights of its config; a classifier may lack its head, an
embedder its pooler. No code that comes with a model is ever run.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from transformers.utils.logging import disable_progress_bar

from adapters_core.base.causal_probe import Keep, with_causal_targets
from adapters_core.base.encoder_probe import probed_images, probed_texts
from adapters_core.base.heads import clear_untrained, head_spec_of
from adapters_core.base.kinds import Kind
from adapters_core.base.rotations import border_of
from adapters_core.base.spec import BaseSpec, spec_of
from adapters_core.base.whole_files import load_whole, longest_text
from adapters_core.tokens.backend import check_generates

_CLASSES: dict[Kind, Any] = {
    "text classifier": AutoModelForSequenceClassification,
    "image classifier": AutoModelForImageClassification,
    "embedder": AutoModel,
}


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory, as its files have it.

    Args:
        model: on the CPU.
        reader: its tokenizer, or its image processor.
        untrained: parameters that its files have no values for; they are zero.
    """

    model: nn.Module
    reader: Any
    untrained: Sequence[str] = ()


def load_model(source: str, kind: Kind, dtype: torch.dtype) -> LoadedModel:
    """Load `source`, a folder or a hub id.

    Raises:
        ValueError: its files lack weights that are not trained; the message names them.
        Exception: whatever transformers raises.
    """
    disable_progress_bar()
    reads = AutoImageProcessor if kind == "image classifier" else AutoTokenizer
    reader = reads.from_pretrained(source, trust_remote_code=False)
    if kind == "causal LM":
        return LoadedModel(load_whole(AutoModelForCausalLM, source, dtype=dtype), reader)
    model, info = _CLASSES[kind].from_pretrained(
        source, dtype=dtype, trust_remote_code=False, output_loading_info=True
    )
    untrained = sorted(info["missing_keys"])
    _refuse_missing_body(model, untrained, kind)
    clear_untrained(model, untrained)
    return LoadedModel(model, reader, untrained)


def freeze_causal_lm(
    model: nn.Module,
    tokenizer: Any,
    name: str,
    max_length: int,
    keep: Keep = lambda spec, run: run(),
) -> BaseSpec:
    """Freeze a causal LM for adapters and return what they may know of it.

    Args:
        model: in the dtype and on the device of its computation.
        tokenizer: its own.
        name: in requests and jobs.
        max_length: the most tokens of a text.
        keep: may know what the probe finds.

    Raises:
        ValueError: its tokenizer cannot write answers, or its rotations have several borders.
    """
    check_generates(tokenizer)
    border_of(model)
    model.eval().requires_grad_(False)
    return with_causal_targets(spec_of(model, name), model, max_length, keep)


def freeze_encoder(
    model: nn.Module,
    reader: Any,
    name: str,
    kind: Kind,
    untrained: Collection[str] = (),
    max_length: int | None = None,
) -> tuple[BaseSpec, int]:
    """Freeze a classifier or an embedder for adapters.

    Args:
        model: in the dtype and on the device of its computation.
        reader: its tokenizer, or its image processor.
        name: in requests and jobs.
        kind: any but a causal LM.
        untrained: parameters without a value in its files.
        max_length: of a text, if it is less than the model and its tokenizer take.

    Returns:
        what adapters may know of it, and the most tokens of a text; 1 for images.

    Raises:
        ValueError: a classifier without a head, or a tokenizer without padding.
    """
    model.eval().requires_grad_(False)
    spec = spec_of(model, name)
    if kind != "embedder":
        spec = replace(spec, head=head_spec_of(model, untrained))
    if kind == "image classifier":
        return probed_images(spec, model, reader), 1
    _set_padding(model, reader)
    length = longest_text(model, reader)
    if max_length is not None:
        length = min(length, max_length)
    return probed_texts(spec, model, reader, length), length


def device_of(setting: str) -> torch.device:
    """Return the device of a setting; `auto` is the GPU if there is one, else the CPU."""
    if setting != "auto":
        return torch.device(setting)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def dtype_of(setting: str, device: torch.device) -> torch.dtype:
    """Return the weights' dtype; `auto` is float32 on the CPU, bfloat16 on any other device."""
    if setting == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    dtype = getattr(torch, setting)
    assert isinstance(dtype, torch.dtype)
    return dtype


def _refuse_missing_body(model: nn.Module, missing: Sequence[str], kind: Kind) -> None:
    """Refuse a base whose files lack more than a head, or a pooler, which is not used."""
    if kind == "embedder":
        lost = [name for name in missing if not name.startswith("pooler.")]
    else:
        body = str(model.base_model_prefix)
        lost = [name for name in missing if name.partition(".")[0] == body]
    if lost:
        raise ValueError(f"its files have no values for {', '.join(lost[:3])}")


def _set_padding(model: nn.Module, tokenizer: Any) -> None:
    config: Any = model.config
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = tokenizer.pad_token_id
    if config.pad_token_id is None:
        raise ValueError("neither config.json nor the tokenizer has a pad_token_id")
