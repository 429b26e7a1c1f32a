"""Computations from a base's weights that a process beside a server finds by their names."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from adapters_core.contract.layer import Weights


def waits(base: Weights, argument: str, report: Callable[[float], None]) -> dict[str, Tensor]:
    """Write this process's id to the file `argument`, say that a quarter is done, and wait."""
    Path(argument).write_text(str(os.getpid()))
    report(0.25)
    signal.pause()
    return {}


def niceness(base: Weights, argument: str, report: Callable[[float], None]) -> dict[str, Tensor]:
    """Return the process's niceness and its number of threads."""
    return {"said": torch.tensor([float(os.nice(0)), float(torch.get_num_threads())])}
