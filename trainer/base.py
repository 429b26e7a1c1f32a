"""Load a base for training: its model, what reads its inputs, what adapters may know of it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
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
from adapters_core.loaded import load_whole, longest_text
from adapters_core.reading.backend import check_generates
from adapters_core.rotations import border_of
from trainer.errors import BaseNotLoadable

_CLASSES: dict[str, Any] = {
    "causal_lm": AutoModelForCausalLM,
    "sequence_classification": AutoModelForSequenceClassification,
    "regression": AutoModelForSequenceClassification,
    "image_classification": AutoModelForImageClassification,
}


@dataclass(frozen=True)
class LoadedBase:
    """A base in memory, its weights frozen.

    Args:
        model: what is trained on.
        reader: its tokenizer, or its image processor.
        spec: as the server has it, so that a trained file fits there.
        max_length: the most tokens a sequence may have; 1 for images.
    """

    model: nn.Module
    reader: Any
    spec: BaseSpec
    max_length: int

    @property
    def device(self) -> torch.device:
        """Return where the model computes."""
        return next(self.model.parameters()).device


def load(
    source: str | Path,
    task: str,
    name: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> LoadedBase:
    """Load `source` (a folder or a hub id) for `task`.

    Without a GPU `auto` means float32 on the CPU, with one bfloat16 on it. No code that comes with
    a model is ever run.

    Raises:
        BaseNotLoadable: it is missing, or of another kind than the task needs.
    """
    disable_progress_bar()
    chosen = torch.device(_device(device))
    try:
        with _silence():
            model, reader, untrained = _loaded(str(source), task, _dtype(dtype, chosen))
        model = nn.Module.to(model, chosen)
        return make(model, reader, name or Path(source).name, task, untrained)
    except Exception as error:  # whatever a library raises over files that somebody gave
        raise BaseNotLoadable(
            f"base {str(source)!r} cannot be loaded for {task}: {error}. Give a folder with "
            "config.json, model.safetensors and a tokenizer or image processor",
            "model",
        ) from error


@contextmanager
def _silence() -> Iterator[None]:
    """Keep transformers from warning of heads that are not there: they are to be trained.

    By a filter: with its logger's level raised, transformers warns of a tensor-parallel plan.
    """
    logger = logging.getLogger("transformers.modeling_utils")

    def nothing(record: logging.LogRecord) -> bool:
        return False

    logger.addFilter(nothing)
    try:
        yield
    finally:
        logger.removeFilter(nothing)


def make(
    model: nn.Module, reader: Any, name: str, task: str, untrained: list[str] | None = None
) -> LoadedBase:
    """Return the base around a model that is in memory.

    Args:
        model: in the dtype and on the device where it is to compute.
        reader: its tokenizer, or its image processor.
        name: what requests call it.
        task: of the job.
        untrained: parameters that its files had no values for; they become zero.

    Raises:
        ValueError: a classifier without a head, a tokenizer without padding, or one that cannot
            write answers.
    """
    clear_untrained(model, untrained or ())
    model.eval().requires_grad_(False)
    spec = spec_of(model, name)
    config: Any = model.config
    if task != "causal_lm":
        spec = replace(spec, head=head_spec_of(model, untrained or ()))
    if task == "image_classification":
        return LoadedBase(model, reader, probed_images(spec, model, reader), 1)
    _set_padding(config, reader, task)
    length = longest_text(model, reader)
    if task == "causal_lm":  # what is not served is not trained
        check_generates(reader)
        border_of(model)  # more than one is refused
        return LoadedBase(model, reader, with_causal_targets(spec, model, length), length)
    return LoadedBase(model, reader, probed_texts(spec, model, reader, length), length)


def _loaded(source: str, task: str, dtype: torch.dtype) -> tuple[nn.Module, Any, list[str]]:
    AutoConfig.from_pretrained(source, trust_remote_code=False)  # its errors speak of the folder
    kind = AutoImageProcessor if task == "image_classification" else AutoTokenizer
    reader = kind.from_pretrained(source, trust_remote_code=False)
    if task == "causal_lm":
        return load_whole(AutoModelForCausalLM, source, dtype=dtype), reader, []
    model, info = _CLASSES[task].from_pretrained(
        source, dtype=dtype, trust_remote_code=False, output_loading_info=True
    )
    untrained = sorted(info["missing_keys"])
    body = str(model.base_model_prefix)
    lost = [key for key in untrained if key.partition(".")[0] == body]
    if lost:
        raise ValueError(f"its files have no values for {', '.join(lost[:3])}")
    return model, reader, untrained


def _set_padding(config: Any, tokenizer: Any, task: str) -> None:
    if task == "causal_lm":
        return
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = tokenizer.pad_token_id
    if config.pad_token_id is None:
        raise ValueError("neither config.json nor the tokenizer has a pad_token_id")


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
