"""Cases, each in a process of its own with bounded memory and time: one that dies ends alone."""

import json
import os
import re
import resource
import select
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Row = dict[str, Any]
_MEMORY = 12 << 30
#: Of what a row says of an error.
MAX_CHARS = 300


def examined(
    names: Sequence[str], examine: Callable[[str], Row], seconds: float, jobs: int = 1
) -> list[Row]:
    """Return one row for each case, in their order; progress goes to standard error.

    Args:
        names: of cases.
        examine: returns a case's row; called in its process, which has what this one has loaded.
        seconds: that one case may take; it is ended then.
        jobs: processes at a time.
    """
    with tempfile.TemporaryDirectory() as scratch:
        waiting, running = list(enumerate(names)), dict[int, int]()
        rows: dict[int, Row] = {}
        while waiting or running:
            while waiting and len(running) < jobs:
                number, name = waiting.pop(0)
                running[_started(name, examine, Path(scratch) / str(number), seconds)] = number
            process, status = _ended(running)
            number = running.pop(process)
            row = rows[number] = _row_of(names[number], Path(scratch) / str(number), status)
            print(f"{names[number]}: {row['verdict']} {row['words']}", file=sys.stderr)
    return [rows[number] for number in range(len(names))]


def _started(name: str, examine: Callable[[str], Row], file: Path, seconds: float) -> int:
    """Start a case's process, which writes its row, and return its number."""
    sys.stderr.flush()
    number = os.fork()
    if number:
        return number
    try:
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process
        signal.alarm(int(seconds) + 1)
        file.write_text(json.dumps(examine(name)))
    finally:
        os._exit(0)


def _ended(running: Iterable[int]) -> tuple[int, int]:
    """Wait for one of these processes, whatever other children do; return its status, too."""
    handles = {os.pidfd_open(process): process for process in running}
    try:
        [first, *_], _, _ = select.select(list(handles), [], [])
        return os.waitpid(handles[first], 0)
    finally:
        for handle in handles:
            os.close(handle)


def _row_of(name: str, file: Path, status: int) -> Row:
    if file.exists():
        row: Row = json.loads(file.read_text())
        return row
    ended = os.waitstatus_to_exitcode(status)
    why = "took too long" if ended == -signal.SIGALRM else f"its process ended with {ended}"
    return {"type": name, "verdict": "broken", "words": why, "num_left_out": 0, "num_targets": 0}


def type_lines(rows: Sequence[Row]) -> list[str]:
    """Return a table of types in Markdown, by name: verdict, layers that are adapted, and words."""
    head = ["| type | | layers adapted | what else |", "|---|---|---|---|"]
    return head + [_line(row) for row in sorted(rows, key=lambda row: str(row["type"]))]


def _line(row: Row) -> str:
    adapted = str(row["num_targets"])
    if row["num_left_out"]:
        adapted += f" of {row['num_targets'] + row['num_left_out']}"
    notes = [row["words"]] if row["words"] else []
    if row.get("own_attention"):
        notes.append("own attention")
    if row.get("num_shared"):
        notes.append(f"{row['num_shared']} layers see what a batch shares")
    if row.get("pads") is False:
        notes.append("texts of one length a batch")
    notes += [f"not `{path}`: {reason}" for reason, path in row.get("left_out", {}).items()]
    shown = " ".join("; ".join(notes).replace("|", "\\|").split())
    is_served = row["verdict"] not in ("refused", "not built")
    return f"| {row['type']} | {row['verdict']} | {adapted if is_served else ''} | {shown} |"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings and the library's own lines off standard error."""
    from transformers.utils import logging

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        yield


def words_of(error: BaseException) -> str:
    """Return an error's message on one line, without the path of the temporary base."""
    words = re.sub(r"'/\S*/base'", "'BASE'", " ".join(str(error).split()))
    return words[:MAX_CHARS] or type(error).__name__
