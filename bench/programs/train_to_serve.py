"""Seconds from a job's last step to the first answer with its adapter, on a running server.

What: small jobs, one after the other, on a server with a worker beside it. The clocks start when
the last optimiser step was done, and when the evaluation after it was over: the times at which the
job's process wrote the two down. They stop when its status is `succeeded` over REST, and when the
first token of a chat with the new adapter has come; both are asked for without a break.
Why: a trained adapter is of use once it answers. The target, from the last step to the first token,
the evaluation included: one second.

    overtone bench handover [--separate] [--jobs 5] [--streams 0] [--width 512] [--layers 4]
"""

import statistics
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.lib.program import Parser
from bench.lib.servers import base_on_disk
from bench.lib.timing import report
from bench.lib.worker import Pair, filed, paired, write_texts
from bench.programs.interference import Callers, uploaded
from overtone_client import Client
from registry import Registry

_POLL_S = 0.005
_TARGETS, _BATCH, _STEPS = "qv", 2, 12
#: What a job's process writes down -> when it does so for the last time.
_MARKS = {"curve.jsonl": "step", "news.jsonl": "evaluation"}


@dataclass
class Marks:
    """When a job's process last wrote into its folder, seconds since 1970.

    Args:
        registry: of the server.
        job: the job's id.
    """

    registry: Registry
    job: str
    at: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def end(self) -> dict[str, float]:
        """Return them; the folder goes away with the job."""
        self._over.set()
        self._thread.join()
        return self.at

    def _watch(self) -> None:
        while not self._over.wait(_POLL_S):
            folder = self.registry.job_folders.newest(self.job)
            for name, mark in _MARKS.items() if folder is not None else ():
                with suppress(OSError):
                    self.at[mark] = (folder / name).stat().st_mtime  # type: ignore[operator]


def handed_over(
    client: Client, registry: Registry, file_id: str, name: str, steps: int
) -> dict[str, float]:
    """Run one job and ask what it made; return the seconds from each mark to each end.

    Raises:
        RuntimeError: the job did not succeed.
    """
    more = {"max_steps": steps, "batch_size": _BATCH}
    made = filed(client, file_id, name, _TARGETS, **more)
    marks = Marks(registry, made.id)
    while not (job := client.training.job(made.id)).is_final:
        time.sleep(_POLL_S)
    seen = time.time()
    if job.fine_tuned_model is None:
        raise RuntimeError(f"the job has {job.status}: {job.error}")
    words = [{"role": "user", "content": "hello"}]
    for _ in client.stream_chat(job.fine_tuned_model, words, max_tokens=1, temperature=0):
        break
    answered, began = time.time(), marks.end()
    return {
        f"{mark} to {end}": at - began[mark]
        for mark in _MARKS.values()
        for end, at in (("succeeded", seen), ("first token", answered))
    }


def rows_of(found: Sequence[dict[str, float]], worker: str, streams: int) -> list[dict[str, Any]]:
    """Return a row for each pair of mark and end."""
    rows = []
    for what in found[0]:
        values = [one[what] for one in found]
        row = {"what": f"last {what}, s", "worker": worker, "streams": streams}
        rows.append(row | {"median": statistics.median(values), "max": max(values)})
    return rows


def measured(
    pair: Pair, client: Client, scratch: Path, jobs: int, steps: int
) -> list[dict[str, float]]:
    """Return what each of so many jobs took, after one that is not counted."""
    file = client.training.upload(write_texts(scratch / "few.jsonl", 40, 63))
    with pair.server.registry() as registry:
        found = [
            handed_over(client, registry, file.id, f"made-{number}", steps)
            for number in range(jobs + 1)
        ]
    return found[1:]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = Parser(prog="overtone bench handover", description=__doc__.splitlines()[0])
    parser.add_argument("--separate", action="store_true", help="a worker started by itself")
    parser.add_argument("--jobs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=_STEPS, help="of each job")
    parser.add_argument("--nice", type=int, default=19, help="of the worker's jobs")
    parser.add_argument("--streams", type=int, default=0, help="callers meanwhile")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    options = parser.parse_args(arguments)
    worker = "separate" if options.separate else "with the server"
    found: list[dict[str, float]] = []
    with ExitStack() as stack:
        base, spec, scratch = stack.enter_context(base_on_disk(options.width, options.layers))
        pair = stack.enter_context(paired(base, scratch / "data", options.separate, options.nice))
        client = stack.enter_context(Client(pair.server.url))

        def run() -> None:
            found.extend(measured(pair, client, scratch, options.jobs, options.steps))

        if options.streams:
            models = uploaded(client, spec, scratch / "adapter", options.streams)
            Callers(pair.server.url, models).during(run)
        else:
            run()
    report("handover", rows_of(found, worker, options.streams))
