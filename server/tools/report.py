"""The output of convert and inspect: JSON values and tables."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from server.tools.convert import Conversion
from server.tools.inspect import Inspection

_SEEDED = ("fourierft", "waveletft")
#: Sets of positions in the table.
_MAX_SETS = 8


def conversion_values(done: Conversion, out: Path) -> dict[str, Any]:
    """Return a conversion as JSON values; `kept` is null where no method changed."""
    told, projection = done.adapter.description, done.projection
    kept = None
    if projection is not None:
        layers = {path: kept.share for path, kept in projection.kept.items()}
        kept = {"overall": projection.total.share, "layers": layers}
    return {"out": str(out), "source_method": done.source_method, "kept": kept} | asdict(told)


def print_conversion(done: Conversion, out: Path) -> None:
    """Write a conversion to standard output."""
    console, told = Console(), done.adapter.description
    if done.projection is not None:
        _print_kept(console, done)
    config = ", ".join(f"{name} {value}" for name, value in told.method_config.items())
    console.print(f"{out}: {told.method} ({config}), {told.size_bytes:,} bytes", highlight=False)
    console.print(told.digest, highlight=False, soft_wrap=True)


def _print_kept(console: Console, done: Conversion) -> None:
    """Write what the projection keeps, and what random positions would keep."""
    projection = done.projection
    assert projection is not None
    table = _table("shape", "n", "energy kept")
    cells = positions = 0
    for path, kept in projection.kept.items():
        method: Any = projection.methods[path]
        (out, in_), n = done.shapes[path], method.n
        cells, positions = cells + out * in_, positions + n
        table.add_row(path, f"{out} x {in_}", str(n), f"{kept.share:.2%}")
    console.print(table)
    total, name = projection.total.share, done.adapter.description.method
    console.print(f"kept {total:.2%} of ||ΔW||² over all layers", highlight=False)
    if name in _SEEDED:
        console.print(
            f"{name}'s positions come from a seed: of an update that was not trained on them they "
            f"keep about their own share of all positions, here {positions / cells:.2%}",
            highlight=False,
        )


def inspection_values(facts: Inspection) -> dict[str, Any]:
    """Return an inspection as JSON values."""
    return asdict(facts)


def print_inspection(facts: Inspection) -> None:
    """Write an inspection to standard output."""
    console = Console()
    for name, value in _summary(facts).items():
        console.print(f"{name:<13}{value}", highlight=False, soft_wrap=True)
    more = ["shape", "||ΔW||", "/ ||W||", "rank"] if facts.base is not None else []
    table = _table("n", "energy", *more)
    for layer in facts.layers:
        table.add_row(*_cells(layer, facts.base is not None))
    console.print(table)
    if facts.base is not None:
        console.print("n: own numbers; energy: sum of their squares; rank: the stable rank")
    _print_positions(console, facts)


def _table(*columns: str) -> Table:
    """Return a table of layers that fits a narrow terminal; long paths take two lines."""
    table = Table("layer", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.columns[0].overflow = "fold"
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _summary(facts: Inspection) -> dict[str, Any]:
    base = "not given: the file alone is shown"
    if facts.base is not None:
        said = "the file's own" if facts.base["verified"] else "not named by the file"
        base = f"{facts.base['name']} ({said}), {facts.base['fingerprint']}"
    return {
        "method": facts.method,
        "config": ", ".join(f"{name} {value}" for name, value in facts.config.items()) or "-",
        "base": base,
        "size": f"{facts.size_bytes:,} bytes, {facts.num_coefficients:,} numbers",
        "digest": facts.digest,
    }


def _cells(layer: dict[str, Any], has_base: bool) -> list[str]:
    cells = [layer["target"], f"{layer['num_coefficients']:,}", f"{layer['energy']:.4g}"]
    if not has_base:
        return cells
    return [
        *cells,
        " x ".join(map(str, layer["shape"])),
        f"{layer['delta_norm']:.4g}",
        f"{layer['relative_norm']:.2%}",
        f"{layer['stable_rank']:.1f}",
    ]


def _print_positions(console: Console, facts: Inspection) -> None:
    """Write each set of positions once: seeded ones are shared by all layers of a shape."""
    found: dict[str, list[dict[str, Any]]] = {}
    for layer in facts.layers:
        if layer.get("places"):
            found.setdefault(layer["places"]["digest"], []).append(layer)
    for digest, layers in list(found.items())[:_MAX_SETS]:
        positions, more = layers[0]["places"], f" and {len(layers) - 1} more" * (len(layers) > 1)
        count = f"{positions['n']:,} positions, {positions['distinct']:,} distinct"
        text = f"{count}, {digest}: {layers[0]['target']}{more}"
        console.print(text, highlight=False, soft_wrap=True)
    if len(found) > _MAX_SETS:
        console.print(f"… and {len(found) - _MAX_SETS} more sets of positions; --json has them all")
