"""The command `top`: what is hot, resident and slow, live in a terminal."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from ._keyboard import keyboard
from ._session import Session, is_terminal
from ._sync.client import Client
from ._top_rates import SORTS, Picture, picture
from ._top_view import NUM_OTHER_LINES, view
from .activity_types import Activity
from .errors import PASSING, InvalidArgument

#: The server's list of adapters that were used last, at most.
_MAX_ADAPTERS = 1000
_KEYS = {
    **{"r": "requests", "t": "tokens", "f": "first-token"},
    **{"u": "running", "w": "waiting", "n": "name"},
}
_HINT = "sort: r requests, t tokens, f first token, u running, w waiting, n name; q ends"


def top(
    ctx: typer.Context,
    sort: Annotated[
        str, typer.Option(help="By " + ", ".join(SORTS) + "; the highest first.")
    ] = "requests",
    interval: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds between two looks.")
    ] = 2.0,
    window: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds that rates are taken over.")
    ] = 10.0,
    limit: Annotated[
        int | None, typer.Option(min=1, max=_MAX_ADAPTERS, help="Adapters; else all that fit.")
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Look twice, print what happened, and end.")
    ] = False,
) -> None:
    """Show what is hot, resident and slow on a server, live.

    The key needs the scope `metrics`. For a program: overtone top --once --json --interval 5
    """
    session: Session = ctx.obj
    if sort not in SORTS:
        raise InvalidArgument(f"--sort {sort[:40]!r}: one of {', '.join(SORTS)}")
    with session.client() as client:
        if once or session.as_json or not is_terminal():
            _print_once(session, client, sort, interval, limit)
        else:
            with suppress(KeyboardInterrupt):  # the usual way to end it
                _Screen(client, sort, interval, window, limit).run()


def _print_once(
    session: Session, client: Client, sort: str, interval: float, limit: int | None
) -> None:
    before = client.activity(limit=_MAX_ADAPTERS)
    time.sleep(interval)
    made = picture(before, client.activity(limit=_MAX_ADAPTERS), sort)
    document = made.document
    document["data"] = document["data"][:limit]
    session.emit(document, view(made, sort, limit))


class _Screen:
    """The live view, on the terminal's other screen."""

    def __init__(
        self, client: Client, sort: str, interval: float, window: float, limit: int | None
    ) -> None:
        self._client, self._sort, self._limit = client, sort, limit
        self._interval = interval
        self._looks: deque[Activity] = deque(maxlen=max(2, 1 + round(window / interval)))
        self._fault = ""

    def run(self) -> None:
        """Look and show until q or Ctrl-C."""
        self._looks.append(self._client.activity(limit=_MAX_ADAPTERS))  # errors are said plainly
        with keyboard() as keys, _other_screen() as live:
            due = time.monotonic() + min(1.0, self._interval)
            while True:
                self._show(live)
                key = keys.key(max(0.0, due - time.monotonic()))
                if key == "q":
                    return
                self._sort = _KEYS.get(key or "", self._sort)
                if key is None:
                    self._look()
                    due = time.monotonic() + self._interval

    def _look(self) -> None:
        try:
            self._looks.append(self._client.activity(limit=_MAX_ADAPTERS))
            self._fault = ""
        except PASSING as error:  # it is asked again
            self._fault = f"{error.code}: {error.message}"

    def _show(self, live: Live) -> None:
        made = self._picture()
        room = live.console.height - NUM_OTHER_LINES
        rows = room if self._limit is None else min(room, self._limit)
        shown = view(made, self._sort, rows, self._fault or _HINT)
        live.update(shown, refresh=True)

    def _picture(self) -> Picture:
        return picture(self._looks[0], self._looks[-1], self._sort)


@contextmanager
def _other_screen() -> Iterator[Live]:
    console = Console(highlight=False, markup=False)
    with Live(Text(), console=console, screen=True, auto_refresh=False) as live:
        yield live
