"""In which numbers a training step computes."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn


def autocast(model: nn.Module) -> AbstractContextManager[Any]:
    """Return what a forward pass runs in: bfloat16 where the base has it, else nothing.

    Coefficients and heads stay in float32 all the same; their gradients too.
    """
    weight = next(model.parameters())
    if weight.dtype == torch.float32:
        return nullcontext()
    return torch.autocast(weight.device.type, torch.bfloat16)
