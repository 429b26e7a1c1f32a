"""A batch's end: its lines as files, and its last state, in one transaction."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

from registry import BatchRecord, FileRecord, Registry
from registry.batches.record import State
from registry.batches.segments import Answers, Kind
from server.batches.lines import EXPIRED, not_run
from server.batches.source import Source, Sourced

PURPOSE = "batch_output"
#: Lines of requests that were not run are written so many at a time.
_LINES = 256

# `pause` releases the interpreter lock to other threads between two lines.
_pause = partial(time.sleep, 0)


def note_expired(source: Source, answers: Answers) -> None:
    """Answer every request that was not run with what it could not be.

    Raises:
        OSError: the disk is full, or the file cannot be read.
    """
    some: list[Sourced] = []
    for one in source.rest():
        some.append(one)
        if len(some) == _LINES:
            _note(some, answers)
    _note(some, answers)


def finish(registry: Registry, held: BatchRecord, to: State, answers: Answers) -> BatchRecord:
    """Write the files of results and end the batch with them; its folder goes afterwards.

    Args:
        registry: of the batch.
        held: the batch under this server's claim.
        to: `completed`, `expired` or `cancelled`.
        answers: of its requests.

    Raises:
        FenceLost: it is another server's now; nothing of it is seen.
        RegistryUnavailable: the registry does not answer.
        OSError: the disk is full; nothing is kept.
    """
    found = registry.batches.get(held.id)
    if found.is_final:  # by an earlier call, the answer to which was lost
        registry.batch_folders.remove(held.id)
        return found
    held = replace(held, spec=found.spec)  # its tenant may have been renamed meanwhile
    answers.sync()
    with ExitStack() as stack:
        output, errors = (
            stack.enter_context(_placed(registry, held, kind, answers))
            for kind in ("output", "error")
        )
        counts = answers.counts
        ended = registry.batch_claims.finish(held, to, counts, output, errors, now=time.time())
    answers.close()
    registry.batch_folders.remove(held.id)
    return ended


@contextmanager
def _placed(
    registry: Registry, held: BatchRecord, kind: Kind, answers: Answers
) -> Iterator[FileRecord | None]:
    """Put the lines of a kind to their place as a file; None if there are none."""
    path = registry.files.begin()
    try:
        with path.open("wb") as out:
            count = answers.write(kind, out, _pause)
        if not count:
            yield None
            return
        with registry.files.placed(
            path,
            filename=f"{held.id}_{kind}.jsonl",
            purpose=PURPOSE,
            created_by=held.spec.created_by,
            facts={"num_requests": count},
            now=time.time(),
        ) as record:
            yield record
    finally:
        path.unlink(missing_ok=True)


def _note(some: list[Sourced], answers: Answers) -> None:
    answers.add([not_run(one.number, one.request.custom_id, *EXPIRED) for one in some])
    some.clear()
    _pause()
