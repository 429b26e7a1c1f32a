"""The targets of the CPU, and how each figure is read from the programs' rows. Pure."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
Read = Callable[[Sequence[Row]], float]

#: Method -> what its step is compared with.
_TRAINED = (("fourierft", "PEFT's"), ("waveletft", "PEFT's"), ("loca", "LoRA's"))


@dataclass(frozen=True)
class Target:
    """One row of the table.

    Args:
        what: is measured.
        part: of the table; its rows have the figure.
        limit: to reach.
        is_most: whether the figure may be at most the limit, or must be at least that.
        read: finds the figure in the part's rows; LookupError or ZeroDivisionError if it is not
            there.
        unit: of figure and limit.
    """

    what: str
    part: str
    limit: float
    is_most: bool
    read: Read
    unit: str = "x"

    def is_met(self, figure: float) -> bool:
        """Return whether the figure is on the right side of the limit."""
        return figure <= self.limit if self.is_most else figure >= self.limit

    @property
    def shown(self) -> str:
        """Return the target as the table has it."""
        return f"{'≤' if self.is_most else '≥'} {self.limit:g}{_unit(self.unit)}"


def show(figure: float, unit: str) -> str:
    """Return a figure as the table has it."""
    digits = f"{figure:.0f}" if abs(figure) >= 100 else f"{figure:.3g}"
    if 0.1 <= abs(figure) < 10:
        digits = f"{figure:.2f}" if unit != "x" else f"{figure:.3f}"
    return digits + _unit(unit)


def _unit(unit: str) -> str:
    return "x" if unit == "x" else f" {unit}"


def found(table: Sequence[Row], **wanted: Any) -> Row:
    """Return the one row with these values. Raises LookupError if there is none."""
    for row in table:
        if all(row.get(name) == value for name, value in wanted.items()):
            return row
    raise LookupError(f"no row has {wanted}")


def begun(rows: Sequence[Row], beginning: str) -> Row:
    """Return the first row whose `what` begins so. Raises LookupError if there is none."""
    for row in rows:
        if str(row["what"]).startswith(beginning):
            return row
    raise LookupError(f"no row begins with {beginning!r}")


def value(beginning: str, key: str = "ratio", factor: float = 1.0) -> Read:
    """Return what reads one value of the row whose `what` begins so."""

    def read(rows: Sequence[Row]) -> float:
        given = begun(rows, beginning)[key]
        if given is None:
            raise LookupError(f"{key} of {beginning!r} could not be measured on this machine")
        return factor * float(given)

    return read


def _decode(kind: str, count: int) -> Read:
    return lambda rows: float(found(rows, what=f"decode {kind}", rows=count)["ratio"])


def _merged(count: int) -> Read:
    return lambda rows: 1 / _decode("merged fourierft qv", count)(rows)


def _of_lora(which: str, count: int) -> Read:
    def read(rows: Sequence[Row]) -> float:
        ours, lora = (_decode(f"{m} {which}", count)(rows) - 1 for m in ("fourierft", "lora"))
        return ours / lora

    return read


def _largest(what: str) -> Read:
    """Return what reads the ratio of a question at the largest size."""

    def read(rows: Sequence[Row]) -> float:
        asked = [row for row in rows if row["what"] == what]
        if not asked:
            raise LookupError(f"no row is {what!r}")
        return float(max(asked, key=lambda row: int(row["registered"]))["ratio"])

    return read


_LINEARS = {"qv": "q, v", "seven": "all seven"}


def _engine_targets() -> Iterator[Target]:
    for which, limit in (("qv", 1.08), ("seven", 1.20)):
        for rows in (8, 32):
            what = f"decode step, every row another adapter, {_LINEARS[which]}, {rows} rows"
            yield Target(what, "decode", limit, True, _decode(f"fourierft {which}", rows))
    for which in ("qv", "seven"):
        for rows in (8, 32):
            what = f"the same, 4096 wide, one layer, {_LINEARS[which]}, {rows} rows"
            yield Target(what, "wide", 1.04, True, _decode(f"fourierft {which}", rows))
    for which in ("qv", "seven"):
        for rows in (8, 32):
            what = f"its extra time, of mixed LoRA's r = 16, {_LINEARS[which]}, {rows} rows"
            yield Target(what, "decode", 0.6, True, _of_lora(which, rows))
    for rows in (8, 32):
        what = f"merged mode, decode, of the base's speed, {rows} rows"
        yield Target(what, "decode", 0.99, False, _merged(rows))
    what = "the engine's batch, of model.generate's tokens/s, 32 rows"
    yield Target(what, "generate", 1.0, False, value("tokens/s of 32 rows"))


def _peft_targets() -> Iterator[Target]:
    for way, limit in (("unmerged", 16.0), ("merged", 7.0)):
        what = f"32 requests, 32 adapters, against PEFT one by one, {way}"
        yield Target(
            what, "peft", limit, False, value(f"32 requests, 32 adapters, against PEFT {way}")
        )
    for part, width, limit in (("peft", 1024, 8.0), ("peft-wide", 4096, 15.0)):
        what = f"cold file to merged weights, against PEFT's load + merge, {width} wide"
        yield Target(what, part, limit, False, value("cold file to merged weights, against PEFT"))
        what = f"the same, against adding matrices of that size, {width} wide"
        yield Target(what, part, 3.0, True, value("cold file to merged weights, against adding"))
        what = f"cold file to its first factored use, against PEFT's load + merge, {width} wide"
        yield Target(what, part, 50.0, False, value("cold file to factored"))


def _server_targets() -> Iterator[Target]:
    first_token = value("time to first token of a never-seen")
    yield Target("first token, never-seen adapter against warm", "uploads", 1.1, True, first_token)
    memory = value("memory of one more")
    yield Target("memory of one more resident adapter, of its file", "memory", 1.25, True, memory)
    what = "throughput, most registered against 10, Zipf"
    yield Target(what, "scale", 0.98, False, _largest("tokens/s"))
    what = "registering one more, most registered against 10"
    yield Target(what, "scale", 1.2, True, _largest("register one more, ms"))
    upload = value("upload to servable", "p99", 1e3)
    yield Target("upload to servable, p99", "uploads", 50.0, True, upload, "ms")
    for count in (1, 32, 1000):
        what = f"short answers over REST, adapters in the traffic: {count}, of the base's tokens/s"
        read = value(f"short answers, {count} adapters, of the base's")
        yield Target(what, "short", 0.95, False, read)
    what = "the same, 1000, of the tokens/s with one"
    yield Target(what, "short", 0.95, False, value("short answers, 1000 adapters, of the tokens"))
    streams = value("tokens/s of 32 streams")
    yield Target("tokens/s of 32 streams, of the bare loop's", "streams", 0.95, False, streams)


def _training_targets() -> Iterator[Target]:
    for which, (method, other) in itertools.product(("qv", "seven"), _TRAINED):
        time, memory = (1.3, 1.3) if method == "loca" else (0.5, 0.7)
        row = f"training step, {which}, {method} "
        what = f"training step, {which}, {method}, of {other}"
        yield Target(f"{what} time", "training", time, True, value(row, "time_ratio"))
        yield Target(f"{what} memory", "training", memory, True, value(row, "memory_ratio"))


TARGETS = (*_engine_targets(), *_peft_targets(), *_server_targets(), *_training_targets())
