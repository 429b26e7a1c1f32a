"""Every classifier and embedder type of the installed transformers: as PEFT has it, or refused.

What: builds each type tiny and random, makes LoRA and FourierFT on all linears with PEFT, serves
two adapters and the base in batches of several lengths, in both modes, and holds all answers
against PEFT's own. Each type runs in a process of its own with bounded memory and time.

    overtone bench encoders [--only bert:texts,vit:images]
"""

import json
import os
import resource
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.program import Parser, positive, run_program
from bench.timing import machine
from overtone_client import InvalidArgument

Row = dict[str, Any]
_MEMORY = 12 << 30
_SECONDS = 60.0


def examined(names: Sequence[str], seconds: float = _SECONDS) -> list[Row]:
    """Return one row for each type.

    Args:
        names: of rows (`encoder_case.encoder_types`).
        seconds: that one may take; it is ended then.
    """
    import bench.encoder_case  # noqa: F401  (once, before the processes part)

    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, name in enumerate(names):
            file = Path(scratch) / f"{number}.json"
            status = _in_its_own_process(name, file, seconds)
            rows.append(_row_of(name, file, status))
            print(f"{name}: {rows[-1]['verdict']} {rows[-1]['words']}", file=sys.stderr)
    return rows


def _in_its_own_process(name: str, file: Path, seconds: float) -> int:
    """Examine a type, write its row, and return how the process ended."""
    sys.stderr.flush()
    number = os.fork()
    if not number:
        try:
            resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process
            signal.alarm(int(seconds) + 1)
            import torch

            from bench.encoder_case import examine_encoder

            torch.set_num_threads(1)
            file.write_text(json.dumps(examine_encoder(name)))
        finally:
            os._exit(0)
    return os.waitpid(number, 0)[1]


def _row_of(name: str, file: Path, status: int) -> Row:
    if file.exists():
        row: Row = json.loads(file.read_text())
        return row
    ended = os.waitstatus_to_exitcode(status)
    why = "took too long" if ended == -signal.SIGALRM else f"its process ended with {ended}"
    return {"type": name, "verdict": "broken", "words": why}


def _chosen(text: str | None) -> list[str]:
    from bench.encoder_case import encoder_types

    known = encoder_types()
    names = known if text is None else text.split(",")
    for name in names:
        if name not in known:
            raise InvalidArgument(f"no type {name!r}; they are called like {known[0]!r}")
    return names


def main(arguments: Sequence[str] | None = None) -> None:
    """Examine and print the JSON line.

    Raises:
        InvalidArgument: a type is not there.
    """
    parser = Parser(prog="overtone bench encoders", description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="types and uses, with commas between")
    parser.add_argument("--seconds", type=positive, default=_SECONDS, help="for one type")
    options = parser.parse_args(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    rows = examined(_chosen(options.only), options.seconds)
    counts = dict(Counter(row["verdict"] for row in rows))
    document = {"bench": "encoders", "machine": machine(), "counts": counts, "rows": rows}
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    sys.exit(run_program(main))
