"""Load a base for training: its model, the reader of its inputs, and its description."""

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig

from adapters_core.base.heads import clear_untrained
from adapters_core.base.kinds import Kind
from adapters_core.base.loading import (
    device_of,
    dtype_of,
    freeze_causal_lm,
    freeze_encoder,
    load_model,
)
from adapters_core.base.spec import BaseSpec
from adapters_core.base.whole_files import longest_text
from trainer.errors import BaseNotLoadable

_KINDS: dict[str, Kind] = {
    "causal_lm": "causal LM",
    "sequence_classification": "text classifier",
    "regression": "text classifier",
    "image_classification": "image classifier",
}


@dataclass(frozen=True)
class LoadedBase:
    """A base in memory, its weights frozen.

    Args:
        model: what is trained on.
        reader: its tokenizer, or its image processor.
        spec: the same as in the server, so that a trained file fits there.
        max_length: the most tokens of a text; 1 for images.
        bases: where what is computed from the weights of bases is kept; None keeps nothing.
    """

    model: nn.Module
    reader: Any
    spec: BaseSpec
    max_length: int
    bases: Path | None = None

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
    bases: Path | None = None,
) -> LoadedBase:
    """Load `source` (a folder or a hub id) for `task`; what is made of it is kept in `bases`.

    Without a GPU `auto` means float32 on the CPU, with one bfloat16 on it. No code that comes with
    a model is ever run.

    Raises:
        BaseNotLoadable: it is missing, or of another kind than the task needs.
    """
    chosen = device_of(device)
    try:
        with _without_head_warnings():
            AutoConfig.from_pretrained(str(source), trust_remote_code=False)  # names the folder
            loaded = load_model(str(source), _KINDS[task], dtype_of(dtype, chosen))
        model = nn.Module.to(loaded.model, chosen)
        called = name or Path(source).name
        made = make(model, loaded.reader, called, task, loaded.untrained)
        return replace(made, bases=bases)
    except Exception as error:  # whatever a library raises over files of any origin
        raise BaseNotLoadable(
            f"base {str(source)!r} cannot be loaded for {task}: {error}. Give a folder with "
            "config.json, model.safetensors and a tokenizer or image processor",
            "model",
        ) from error


@contextmanager
def _without_head_warnings() -> Iterator[None]:
    """Keep transformers from warning of missing heads: the job trains them.

    Through a filter: with its logger's level raised, transformers warns of a tensor-parallel plan.
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
    model: nn.Module, reader: Any, name: str, task: str, untrained: Collection[str] = ()
) -> LoadedBase:
    """Return the base around a model that is in memory.

    Args:
        model: in the dtype and on the device of its computation.
        reader: its tokenizer, or its image processor.
        name: in jobs and requests.
        task: of the job.
        untrained: parameters without a value in its files; they become zero.

    Raises:
        ValueError: a classifier without a head, a tokenizer without padding, or one that cannot
            write answers.
    """
    clear_untrained(model, untrained)
    kind = _KINDS[task]
    if kind == "causal LM":  # with the checks of serving: what is not served is not trained
        length = longest_text(model, reader)
        spec = freeze_causal_lm(model, reader, name, length)
    else:
        spec, length = freeze_encoder(model, reader, name, kind, untrained)
    return LoadedBase(model, reader, spec, length)
