"""All targets of the CPU in one JSON and one table: target, figure, met or not, machine, commit.

What: runs the other programs as processes of their own, one after the other, and reads each
figure from their rows. A part that was measured before stays in the file until it is run again,
with the machine, commit and date of its own, so a table can be made in pieces.
Why: a target is only worth what the last measurement against it is.

    overtone bench table OUT.json [--only decode,peft] [--quick] [--markdown OUT.md]
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.lib.program import Parser
from bench.lib.timing import machine
from bench.table.targets import TARGETS, Target, show
from overtone_client import InvalidArgument

Json = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """A program's run.

    Args:
        program: of bench/.
        options: for figures that count.
        quick: for a smoke run.
    """

    program: str
    options: str
    quick: str

    def command(self, is_quick: bool) -> list[str]:
        """Return its command line."""
        options = self.quick if is_quick else self.options
        return [sys.executable, "-m", "bench", self.program, *options.split()]


_SMALL = "--width 256 --layers 2"
PARTS = {
    "decode": Part("engine", "--only decode --rounds 21", f"--only decode --rounds 3 {_SMALL}"),
    "wide": Part(
        "engine",
        "--only decode --rounds 11 --width 4096 --layers 1",
        "--only decode --rounds 3 --width 512 --layers 1",
    ),
    "generate": Part("engine", "--only generate --rounds 18", f"--only generate {_SMALL}"),
    "peft": Part("peft", "--rounds 5", f"--rounds 2 --new 8 {_SMALL}"),
    "peft-wide": Part(
        "peft",
        "--only-load --rounds 7 --width 4096 --layers 1",
        "--only-load --rounds 2 --width 512 --layers 1",
    ),
    "streams": Part("http", "--only streams", f"--only streams --rounds 1 --new 8 {_SMALL}"),
    "uploads": Part(
        "http",
        "--only upload first-token --count 200",
        f"--only upload first-token --count 5 {_SMALL}",
    ),
    "memory": Part("http", "--only memory", f"--only memory --residents 8 24 {_SMALL}"),
    "short": Part("short", "--rounds 5", f"--adapters 1 4 --rounds 1 --requests 32 {_SMALL}"),
    "scale": Part(
        "scale",
        "--sizes 10 10000 --rounds 7",
        f"--sizes 10 40 --rounds 1 --requests 32 --n 50 {_SMALL}",
    ),
    "training": Part(
        "training", "--rounds 5 --rows 2", f"--rounds 2 --tokens 16 --rows 2 {_SMALL}"
    ),
}


def measured(name: str, is_quick: bool) -> Json:
    """Run a part; its progress goes to standard error.

    Raises:
        RuntimeError: it failed.
    """
    part = PARTS[name]
    print(f"== {name}: {part.program} {part.command(is_quick)[4:]}", file=sys.stderr, flush=True)
    started, last = time.perf_counter(), ""
    root = str(Path(__file__).parents[2])
    env = os.environ | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(
        part.command(is_quick), stdout=subprocess.PIPE, text=True, env=env
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            last = line
            if not line.startswith("{"):
                print(line, end="", file=sys.stderr, flush=True)
    if process.returncode:
        raise RuntimeError(f"part {name} ended with code {process.returncode}; see above")
    result: Json = json.loads(last)
    return {
        "options": part.quick if is_quick else part.options,
        "quick": is_quick,
        "seconds": round(time.perf_counter() - started, 1),
        "machine": result["machine"],
        "rows": result["rows"],
    }


def table_of(parts: Mapping[str, Json]) -> list[Json]:
    """Return one row for every target; without a figure where its part was not run."""
    return [_row(target, parts.get(target.part)) for target in TARGETS]


def _row(target: Target, part: Json | None) -> Json:
    row: Json = {
        "what": target.what,
        "part": target.part,
        "bar": target.shown,
        "figure": None,
        "met": None,
    }
    if part is None:
        return row
    try:
        figure = target.read(part["rows"])
    except (LookupError, ZeroDivisionError) as error:
        return row | {"why": f"{type(error).__name__}: {error}"}
    where = {name: part["machine"].get(name) for name in ("commit", "date", "processor")}
    shown = {"figure": figure, "shown": show(figure, target.unit), "met": target.is_met(figure)}
    return row | shown | where | {"quick": part["quick"]}


def markdown(table: Sequence[Json], where: Mapping[str, Any]) -> str:
    """Return the table for docs/benchmarks.md."""
    cores, torch = where.get("cores"), where.get("torch", "not loaded")
    lines = [
        f"Machine: {where.get('processor')}, {cores} cores, torch {torch}, "
        f"{where.get('threads', cores)} threads, float32.",
        "",
        "| what | target | measured | met | commit, date |",
        "|---|---|---|---|---|",
    ]
    for row in table:
        figure = row.get("shown", "not measured")
        met = {True: "yes", False: "**no**", None: ""}[row["met"]]
        source = f"{row['commit']}, {row['date']}" if row.get("date") else ""
        if row.get("processor") not in (None, where.get("processor")):  # parts of two machines
            source += f", {row['processor']}"
        note = " (smoke run: means nothing)" if row.get("quick") else ""
        lines.append(f"| {row['what']} | {row['bar']} | {figure}{note} | {met} | {source} |")
    return "\n".join(lines) + "\n"


def _chosen(text: str | None) -> list[str]:
    """Return the parts that are named. Raises InvalidArgument for one that is not there."""
    names = list(PARTS) if text is None else text.split(",")
    for name in names:
        if name not in PARTS:
            raise InvalidArgument(f"no part {name!r}; there are {', '.join(PARTS)}")
    return names


def _kept(file: Path) -> dict[str, Json]:
    """Return the parts of an earlier run. Raises InvalidArgument if the file is something else."""
    if not file.exists():
        return {}
    try:
        parts: dict[str, Json] = json.loads(file.read_text())["parts"]
    except (ValueError, LookupError, TypeError) as error:
        raise InvalidArgument(f"{file} is there, but no earlier table; name another") from error
    return parts


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write, and print the table and the JSON.

    Raises:
        InvalidArgument: a part or a file cannot be used.
        RuntimeError: a part failed; those before it are in the file.
    """
    parser = Parser(prog="overtone bench table", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the JSON; parts that are there already are kept")
    parser.add_argument("--only", help=f"parts, with commas between: {','.join(PARTS)}")
    parser.add_argument("--none", action="store_true", help="run nothing, only write the table")
    parser.add_argument(
        "--quick", action="store_true", help="a smoke run; its figures mean nothing"
    )
    parser.add_argument("--markdown", type=Path, help="also write the table here")
    options = parser.parse_args(arguments)
    names, parts = _chosen(options.only), _kept(options.out)
    document: Json = {}
    for name in [None] if options.none else names:
        if name is not None:
            parts[name] = measured(name, options.quick)
        where = machine() | next((part["machine"] for part in parts.values()), {})
        table = table_of(parts)
        document = {"bench": "table", "machine": where, "parts": parts, "table": table}
        options.out.write_text(json.dumps(document, indent=1) + "\n")
    text = markdown(document["table"], document["machine"])
    if options.markdown is not None:
        options.markdown.write_text(text)
    print(text)
    print(json.dumps(document), flush=True)
