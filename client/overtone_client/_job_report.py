"""Training jobs for people: the list, and one job's facts; and which job a shortened id means."""

from collections.abc import Iterable, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ._session import facts, is_terminal, plain_table, printable
from ._sync.client import Client
from ._sync.jobs import Job
from .errors import InvalidArgument

_MARK = "ftjob-"
_DIGITS = 24  # behind the mark of a job, a batch or a file
_WHOLE = len(_MARK) + _DIGITS
_SHORTEST = len(_MARK) + 8


def job_id(client: Client, given: str) -> str:
    """The whole id of the job that `given` begins, with or without `ftjob-`.

    Raises:
        InvalidArgument: no job's id begins so, or several do.
    """
    ids = (job.id for job in client.training.jobs())
    return whole_id(given, _MARK, ids, ("job", "`overtone jobs`"))


def whole_id(given: str, mark: str, ids: Iterable[str], words: tuple[str, str]) -> str:
    """The id that `given` begins, with or without its mark.

    Args:
        given: as it was typed.
        mark: with which all ids begin.
        ids: all of them; asked for only where `given` is no whole one.
        words: what they are of, and the command that lists them.

    Raises:
        InvalidArgument: none begins so, or several do; also where nothing stands behind the mark,
            as an empty variable of a shell gives, and there is one only.
    """
    what, command = words
    if mark.startswith(given):
        raise InvalidArgument(f"{given!r} is how every {what}'s id begins: {command} lists them")
    start = given if given.startswith(mark) else mark + given
    if len(start) >= len(mark) + _DIGITS:
        return start
    found = [id for id in ids if id.startswith(start)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise InvalidArgument(f"no {what}'s id begins with {given!r}: {command} lists them")
    listed = ", ".join(found[:5]) + (" …" if len(found) > 5 else "")
    plural = "batches" if what == "batch" else f"{what}s"
    raise InvalidArgument(f"the ids of {len(found)} {plural} begin with {given!r}: {listed}")


def shortened(ids: Sequence[str]) -> list[str]:
    """The ids cut to one length at which they still differ, as every command takes them."""
    length = _SHORTEST
    while length < _WHOLE and len({id[:length] for id in ids}) < len(set(ids)):
        length += 1
    return [id[:length] for id in ids]


def job_table(jobs: Sequence[Job]) -> Table:
    """The jobs, one a line; ids are whole where no terminal limits the line."""
    ids = [job.id for job in jobs]
    rows = [
        (
            id,
            job.status.removesuffix("_files"),  # the longest, which would break the line
            job.fine_tuned_model or job.name or "",
            job.method or "",
            f"{job.step}/{job.num_steps}" if job.num_steps else "",
            f"{job.created_at:%m-%d %H:%M}" if job.created_at else "",
        )
        for id, job in zip(shortened(ids) if is_terminal() else ids, jobs, strict=True)
    ]
    return plain_table(("JOB", "STATUS", "ADAPTER", "METHOD", "STEP", "CREATED"), rows)


def shown(job: Job) -> RenderableType:
    """One job: how to follow it or to let it go on, its results afterwards."""
    if job.status == "paused":
        return Text(printable(how_to_resume(job)))
    if not job.is_final:
        short = shortened([job.id])[0]
        text = f"{job.id} is {job.status}; `overtone job {short} --follow` shows how it goes"
        return Text(printable(text))
    return facts(
        {
            "job": job.id,
            "status": job.status,
            "made": job.fine_tuned_model,
            "adapter": None if job.fine_tuned_model else job.name,
            "digest": job.digest,
            "method": job.method,
            "error": job.error.message if job.error else None,
            "steps": f"{job.step}/{job.num_steps}" if job.num_steps else None,
            "metrics": _numbers(job.metrics.items()),
            "base alone": _numbers((job.metrics.get("base") or {}).items()),
        }
    )


def how_to_resume(job: Job) -> str:
    """What to say of a job that is paused."""
    short = shortened([job.id])[0]
    return f"{job.id} is paused; `overtone job {short} --resume` lets it go on"


def _numbers(metrics: Iterable[tuple[str, object]]) -> str:
    numbers = {name: value for name, value in metrics if isinstance(value, int | float)}
    return ", ".join(f"{name}={value:.4g}" for name, value in numbers.items())
