"""What a GPU would do at Llama-3.1-8B's shape, counted without one.

What: launches, bytes and waits of a decode step (32 rows, each with an adapter of its own, 128
tokens of context), of a prompt's step (128 tokens), of merging one linear of each shape and of a
load into a bank, for every method on query and value and on all seven linears; against the bars of
gpu_bars.py. Methods whose bases are made of the base's values are not counted.
Why: a decode step is short; what an adapter adds must be few launches and few bytes, and that can
be held before a GPU is seen. `mixed / base` is an estimate from these counts; docs/gpu.md has its
arithmetic. `--compile` compiles the kernels of Triton's for sm_90 and sm_80.

    overtone bench gpu_cost [--methods NAME ...] [--json | --markdown | --bars]
    overtone bench gpu_cost --compile 90 80 [--every]
"""

import json
import pprint
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from rich.console import Console

from adapters_core.contract.method import Method
from bench.lib.bases import ENDINGS
from bench.lib.compiling import SHARED_LIMITS
from bench.lib.counting import KERNEL_S, OWN_KERNEL_S, Cost
from bench.lib.grids import Grid
from bench.lib.program import Parser
from bench.lib.timing import machine
from bench.programs.gpu_bars import BARS, GOALS
from bench.programs.gpu_compile import compiled_grid, compiled_rows
from bench.programs.gpu_counts import (
    MERGED,
    CountedBase,
    CountedModel,
    Counts,
    Layered,
    methods,
)


@dataclass(frozen=True)
class Row:
    """One row of the table: what was counted, and figures without a bar."""

    name: str
    figures: Mapping[str, float]
    others: Mapping[str, Any]

    @property
    def crossed(self) -> list[str]:
        """Return the figures that are beyond their bars, or have none."""
        bars = BARS.get(self.name, {})
        return [name for name, value in self.figures.items() if not value <= bars.get(name, -1)]


def extra_seconds(extra: Counts, with_beside: bool) -> float:
    """Return an estimate for what adapters add to a recorded step.

    `with_beside` False: launches on a side stream take the time alone by which they are late;
    their bytes do all the same.
    """
    beside = extra.beside.own * OWN_KERNEL_S
    beside += (extra.beside.launches - extra.beside.own) * KERNEL_S
    return extra.cost.seconds + (0.0 if with_beside else extra.late_s - beside)


def counted_rows(chosen: Mapping[str, Method]) -> Iterator[Row]:
    """Yield all rows of these methods, the base's and merged ones' first."""
    model = CountedModel()
    decode = model.layered(lambda base: base.decode(None))
    prompt = model.layered(lambda base: base.prompt(None))
    base = _step_row("decode base", decode, None)
    yield replace(base, others={**base.others, "ms": 1e3 * decode.whole.cost.base_seconds})
    yield _step_row("prompt base", prompt, None)
    for which in ENDINGS:
        merged = model.layered(partial(CountedBase.merged, which=which))
        yield _decode_row(f"decode merged {which}", merged, decode)
    for name, method in chosen.items():
        for which in ENDINGS:
            step = model.layered(partial(CountedBase.decode, method=method, which=which))
            yield _decode_row(f"decode {name} {which}", step, decode)
            step = model.layered(partial(CountedBase.prompt, method=method, which=which))
            yield _step_row(f"prompt {name} {which}", step, prompt)
            load = model.layered(partial(CountedBase.load, method=method, which=which))
            yield _load_row(f"load {name} {which}", load.whole.cost)
        yield from _merges(model, name, method)


def _decode_row(name: str, step: Layered, base: Layered) -> Row:
    """Return a step's row with the estimates, with and without work beside the base's."""
    row = _step_row(name, step, base)
    ratios = {
        "mixed / base": _ratio(base, step, with_beside=False),
        "in a row": _ratio(base, step, with_beside=True),
    }
    return replace(row, others={**row.others, **ratios})


def _step_row(name: str, step: Layered, base: Layered | None) -> Row:
    """Return a step's row: a layer's cost, beyond the base's where there is an adapter.

    `beside` are launches on a side stream, `late` what the main stream waits for them.
    """
    layer = (step.beyond(base) if base else step).layer
    figures = {
        "launches": layer.cost.launches,
        "MB": layer.cost.num_bytes / 1e6,
        "waits": step.whole.cost.waits,
    }
    others = {"beside": layer.beside.launches, "late, us": 1e6 * layer.late_s}
    return Row(name, figures, others)


def _load_row(name: str, load: Cost) -> Row:
    others = {"waits": load.waits, "kB": load.upload_bytes / 1e3, "launches": load.launches}
    return Row(name, {"copies": load.uploads}, others)


def _ratio(base: Layered, step: Layered, with_beside: bool) -> float:
    """Return the speed of a step with adapters, as a share of the base's."""
    alone = base.whole.cost.base_seconds
    return alone / (alone + extra_seconds(step.beyond(base).whole, with_beside))


def _merges(model: CountedModel, name: str, method: Method) -> Iterator[Row]:
    for linear in MERGED:
        cost = model.one.merge(method, linear).cost
        share = cost.num_bytes / (2 * model.one.golden_bytes(linear))
        figures = {"of read and write": share, "launches": cost.launches}
        yield Row(f"merge {name} {linear}", figures, {"waits": cost.waits, "copies": cost.uploads})


def bars_of(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Return bars as gpu_bars.py has them: what was counted, or the goal where that is reached."""
    return {
        row.name: {
            name: max(_rounded_up(value), GOALS.get(row.name, {}).get(name, 0))
            for name, value in row.figures.items()
        }
        for row in rows
    }


def _rounded_up(value: float) -> float:
    return int(value) if value == int(value) else round(value + 5e-4, 3)


def grids(rows: Sequence[Row]) -> Iterator[Grid]:
    """Yield a table for each kind of row."""
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        kinds.setdefault(row.name.partition(" ")[0], []).append(row)
    for kind, own in kinds.items():
        names = list(dict.fromkeys(name for row in own for name in (*row.figures, *row.others)))
        lines = [
            [row.name.removeprefix(f"{kind} "), *(_cell(row, name) for name in names)]
            for row in own
        ]
        yield Grid(kind, [kind, *names], lines)


def _cell(row: Row, name: str) -> str:
    value = row.figures.get(name, row.others.get(name))
    if value is None:
        return ""
    goal = GOALS.get(row.name, {}).get(name)
    wanted = "" if goal is None or value <= goal else f" (goal {goal:g})"
    bar = BARS.get(row.name, {}).get(name)
    crossed = f", over {bar}" if name in row.crossed else ""
    return f"{_short(value)}{wanted}{crossed}"


def _short(value: float) -> str:
    return f"{value:.0f}" if value == int(value) or value >= 1000 else f"{value:.3g}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Count or compile, and print."""
    parser = Parser(prog="overtone bench gpu_cost", description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=sorted(methods()), choices=methods())
    parser.add_argument("--json", action="store_true", help="no tables")
    parser.add_argument("--markdown", action="store_true", help="tables as docs/gpu.md has them")
    parser.add_argument("--bars", action="store_true", help="print what gpu_bars.py would hold")
    compiling = parser.add_argument_group("compiling, in place of counting")
    compiling.add_argument(
        "--compile", nargs="+", type=int, choices=sorted(SHARED_LIMITS), help="for which GPUs"
    )
    compiling.add_argument("--every", action="store_true", help="every shape, not the largest")
    options = parser.parse_args(arguments)
    chosen = {name: methods()[name] for name in options.methods}
    if options.bars:
        pprint.pp(bars_of(list(counted_rows(chosen))), width=100)
        return
    if options.compile:
        made = list(compiled_rows(chosen, options.compile, options.every))
        _print("gpu_cost --compile", [row.cells for row in made], [compiled_grid(made)], options)
        return
    rows = list(counted_rows(chosen))
    told = [{"row": row.name, **row.figures, **row.others, "crossed": row.crossed} for row in rows]
    _print("gpu_cost", told, grids(rows), options)


def _print(name: str, rows: list[dict[str, Any]], shown: Iterable[Grid], options: Any) -> None:
    console = Console(highlight=False)
    for grid in () if options.json else shown:
        if options.markdown:
            print(grid.for_page(), end="\n\n")
        else:
            console.print(grid.for_terminal())
    print(json.dumps({"bench": name, "machine": machine(), "rows": rows}), flush=True)
