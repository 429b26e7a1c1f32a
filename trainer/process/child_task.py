"""The task of a job's process: one JSON object on its standard input.

Not on the command line, which every user of a machine can read: the registry's URL may hold a
password.
"""

import importlib
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict

from registry.common.fence import Fence
from trainer.process.settings import WorkerSettings


class ChildTask(BaseModel):
    """One attempt at one job.

    Args:
        settings: the worker's; `registry` is the running server's URL, also of an embedded one.
        fence: the claim, and with it the job.
        parent: the worker's process id; the child exits if getppid() differs.
        heartbeat: descriptor of the pipe for heartbeats; None sends none.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    settings: WorkerSettings
    fence: Fence
    parent: int
    heartbeat: int | None = None


def function_of(path: str) -> Callable[..., Any]:
    """Return the function that `module:function` names."""
    module, _, name = path.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found
