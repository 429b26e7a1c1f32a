"""What a worker tells the process that it starts for a job: one JSON object on standard input.

Not on the command line, which every user of a machine can read: the registry's URL may hold a
password.
"""

import importlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Self

RUN = "trainer.training.run:run_job"
LOAD = "trainer.base:load"


@dataclass(frozen=True)
class ChildTask:
    """One attempt at one job.

    Args:
        registry: its URL; that of the running server where the worker has an embedded one.
        data, store: folders, as for `registry.connect`.
        job, fence: the claim.
        worker: who made it, for people.
        base, base_name: what is trained on.
        device, ranks: as for `trainer.process.devices.devices_of`.
        nice: added to the process's niceness.
        threads: of the process's matrix products; None leaves it to torch.
        parent: the worker's process id; who finds another parent ends at once.
        run, load: `module:function` of what trains, and of what loads the base.
        heartbeat: descriptor of the pipe in which the process says that it gets on.
        tensorboard: folder of its event files; None writes none.
    """

    registry: str
    data: str
    store: str | None
    job: str
    fence: int
    worker: str
    base: str
    base_name: str
    device: str
    nice: int
    threads: int | None
    parent: int
    run: str = RUN
    load: str = LOAD
    heartbeat: int | None = None
    ranks: int = 1
    tensorboard: str | None = None

    def to_json(self) -> str:
        """Return what `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the task that a worker wrote."""
        return cls(**json.loads(text))


def named(path: str) -> Callable[..., Any]:
    """Return the function that `module:function` names."""
    module, _, name = path.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found
