"""The program of every study: its options, its runs, its table and its JSON."""

import json
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch

from bench.lib.picture import check_picture
from bench.lib.program import Parser
from bench.lib.timing import report
from bench.studies.picture import draw, markdown
from bench.studies.runs import Contender, Study, run_elsewhere, run_one
from bench.studies.sums import summed_up
from overtone_client import InvalidArgument
from trainer.checkpoint import write_whole


class Look(NamedTuple):
    """What makes the picture of a table, and the table as a page has it."""

    draw: Callable[[Study, Sequence[dict[str, Any]], Path], None]
    markdown: Callable[[Study, Sequence[dict[str, Any]]], str]


PLAIN = Look(draw, markdown)


def study_main(
    study: Study,
    about: str,
    arguments: Sequence[str] | None,
    look: Look = PLAIN,
    own: ArgumentParser | None = None,
) -> None:
    """Run a study's contenders, one process each, and report them.

    Args:
        study: of the program.
        about: its docstring.
        arguments: of its command line.
        look: of its table.
        own: further options of the program, which it has read.

    Raises:
        InvalidArgument: an option is wrong.
    """
    options = _options(study, about, arguments, own)
    names = [one.what for one in study.contenders]
    unknown = [name for name in options.only or () if name not in names]
    if unknown:
        raise InvalidArgument(f"--only {unknown} is none of: {', '.join(names)}")
    chosen = [one for one in study.contenders if not options.only or one.what in options.only]
    torch.set_num_threads(options.threads)
    if options.run:
        print(json.dumps(run_one(study, chosen[0], options.seed, options.run)), flush=True)
        return
    if options.picture:
        check_picture(options.picture)
    table = summed_up(study, _rows(study, chosen, options))
    if options.picture:
        look.draw(study, table, options.picture)
    if options.markdown:
        options.markdown.write_text(look.markdown(study, table))
    report(study.name, table)


def _rows(study: Study, chosen: Sequence[Contender], options: Any) -> list[dict[str, Any]]:
    """Return all rows; those that are in the JSON already are not run again."""
    rows = _kept(options.json)
    have = {(row["what"], row["seed"]) for row in rows}
    seeds = range(options.seed, options.seed + options.seeds)
    wanted = [(one, seed) for seed in seeds for one in chosen if (one.what, seed) not in have]
    with TemporaryDirectory() as name:
        work = Path(name)
        if wanted:
            study.prepare(work, options.examples)
        for one, seed in wanted:
            row = run_elsewhere(study, one, seed, work, options.threads)
            _check_data(rows, row)
            rows.append(_told(row, study.metric))
            if options.json:
                write_whole(options.json, (json.dumps(rows, indent=1) + "\n").encode())
    return rows


def _kept(file: Path | None) -> list[dict[str, Any]]:
    """Return the rows of an earlier run. Raises InvalidArgument if the file is something else."""
    if file is None or not file.exists():
        return []
    try:
        rows: list[dict[str, Any]] = json.loads(file.read_text())
        are_runs = all({"what", "seed", "before", "after"} <= set(row) for row in rows)
    except (ValueError, TypeError):
        are_runs = False
    if not are_runs:
        raise InvalidArgument(f"{file} is there, but no earlier study; name another")
    return rows


def _check_data(rows: Sequence[dict[str, Any]], row: dict[str, Any]) -> None:
    """Refuse to put a run beside those of other data: texts follow from what is installed.

    Raises:
        InvalidArgument: the rows of the same group have another digest.
    """
    others = {one.get("data") for one in rows if one.get("group") == row.get("group")}
    if others - {row.get("data")}:
        message = f"{row['what']} was run on {row.get('data')}, the JSON's rows on {others}"
        raise InvalidArgument(f"{message}; name another file")


def _told(row: dict[str, Any], metric: str) -> dict[str, Any]:
    figures = {name: f"{value:.3f}" for name, value in row["after"].items()}
    told = row.get("diverged") or f"{metric} {row['before'][metric]:.3f} -> {figures.pop(metric)}"
    more = "".join(f", {name} {value}" for name, value in figures.items())
    print(f"{row['what']}, seed {row['seed']}: {told}{more}", flush=True)
    return row


def _options(
    study: Study, about: str, arguments: Sequence[str] | None, own: ArgumentParser | None
) -> Any:
    prog, parents = f"overtone bench {study.name}", [own] if own else []
    parser = Parser(prog=prog, description=about.splitlines()[0], parents=parents)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each contender; 0 runs none")
    parser.add_argument("--seed", type=int, default=0, help="the first of them")
    parser.add_argument("--only", action="append", help="a contender, by its name; may be repeated")
    parser.add_argument("--examples", type=int, help="read so many only")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--json", type=Path, help="every single run; those there are kept")
    parser.add_argument("--markdown", type=Path, help="write the table there")
    parser.add_argument("--picture", type=Path, help="draw the table there (.png, .svg, .pdf)")
    parser.add_argument("--run", type=Path, metavar="DIR", help="one run on prepared data")
    return parser.parse_args(arguments)
