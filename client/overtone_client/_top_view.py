"""What `overtone top` shows: a server in four lines, and a table of its adapters."""

from collections.abc import Sequence

from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from ._adapter_commands import size
from ._session import printable
from ._top_rates import Picture, Row

_COLUMNS = (
    "ADAPTER",
    "REQ/S",
    "TOK/S",
    "PROMPT/S",
    "P95 FIRST",
    "RUN",
    "WAIT",
    "MODE",
    "IN MEMORY",
)


def view(picture: Picture, sort: str, max_rows: int | None, hint: str = "") -> Group:
    """The whole of it; `max_rows` of the table, None for all."""
    rows = picture.rows if max_rows is None else picture.rows[: max(0, max_rows)]
    left = len(picture.rows) - len(rows)
    parts: list[RenderableType] = [*_head(picture, sort), _table(rows)]
    parts += [Text(f"and {left} more", "dim")] if left else []
    parts += [Text(printable(hint), "dim")] if hint else []
    return Group(*parts)


#: Lines of the view beside the rows.
NUM_OTHER_LINES = 7


def _head(picture: Picture, sort: str) -> list[Text]:
    now, rates = picture.now, picture.rates
    running = f"{now.running} of {now.max_running} running, {now.waiting} waiting"
    first = _seconds(rates.first_token_p95_s)
    caches = (_cache(picture, name) for name in now.caches)
    return [
        Text(f"{printable(now.base)}: {running}, cache of keys {now.kv_usage:.0%} used", "bold"),
        Text(
            f"{rates.requests_per_s:.1f} requests/s, {rates.generated_tokens_per_s:.1f} tokens/s, "
            f"{rates.prompt_tokens_per_s:.1f} prompt tokens/s, first token p95 {first}, "
            f"over {picture.seconds:.3g} s"
        ),
        Text("adapters in memory: " + "; ".join(caches)),
        Text(f"sorted by {sort}", "dim"),
    ]


def _cache(picture: Picture, name: str) -> str:
    cache, share = picture.now.caches[name], picture.hit_shares[name]
    hits = "" if share is None else f", {share:.0%} hits"
    return f"{printable(name)} {cache.entries} ({size(cache.bytes)}{hits})"


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, title in enumerate(_COLUMNS):
        is_text = number in (0, 7, 8)
        width = len(title) if 0 < number < 8 else None  # names give way where there is no room
        side: JustifyMethod = "left" if is_text else "right"
        table.add_column(title, justify=side, no_wrap=True, min_width=width)
    for row in rows:
        style = "" if row.running or row.waiting or row.rates.requests_per_s else "dim"
        table.add_row(*map(Text, _cells(row)), style=style)
    return table


def _cells(row: Row) -> list[str]:
    rates = row.rates
    return [
        "(base)" if row.adapter is None else printable(row.adapter),
        f"{rates.requests_per_s:.1f}",
        f"{rates.generated_tokens_per_s:.1f}",
        f"{rates.prompt_tokens_per_s:.1f}",
        _seconds(rates.first_token_p95_s),
        str(row.running),
        str(row.waiting),
        printable(row.mode or ""),
        "" if row.adapter is None else printable(", ".join(row.tiers)) or "disk",
    ]


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.1f} s"
