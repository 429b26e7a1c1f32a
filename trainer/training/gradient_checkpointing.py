"""Gradient checkpointing of a model of transformers: less memory, more time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def gradient_checkpointing(model: nn.Module, wanted: bool) -> Iterator[None]:
    """While the block runs, keep of a forward pass the layers' inputs alone, if that is wanted."""
    if not wanted:
        yield
        return
    own: Any = model
    # transformers 5.20 gave it another name.
    what = "activation" if hasattr(own, "activation_checkpointing_enable") else "gradient"
    # A cache would hold keys and values that are computed again; transformers warns of it.
    cached = getattr(own.config, "use_cache", None)
    if cached is not None:
        own.config.use_cache = False
    arguments = {f"{what}_checkpointing_kwargs": {"use_reentrant": False}}
    getattr(own, f"{what}_checkpointing_enable")(**arguments)
    try:
        yield
    finally:
        getattr(own, f"{what}_checkpointing_disable")()
        if cached is not None:
            own.config.use_cache = cached
