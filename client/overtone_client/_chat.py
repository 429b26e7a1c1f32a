"""A chat at a terminal, turn by turn."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import typer

from ._answer_print import print_all
from ._near_names import near_names
from ._session import printable, report
from ._sync.client import Client
from .errors import ModelNotFound, OvertoneError

_KEPT_LINES = 1000
_ENDS = "Ctrl-D or /exit ends the chat; /help shows what else there is"


class Chat:
    """One conversation; a turn that fails, or is stopped by Ctrl-C, does not end it.

    Args:
        client: asks the server.
        name: the model that answers first.
        system: what it is told beforehand.
        params: of every request.
        offered: names of adapters that begin so, for a Tab.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        system: str | None,
        params: Mapping[str, Any],
        offered: Callable[[str], list[str]],
    ) -> None:
        self._client, self._name, self._system, self._params = client, name, system, params
        self._offered = offered
        self._turns: list[dict[str, str]] = []
        self._commands: dict[str, tuple[str, Callable[[str], None]]] = {
            "/adapter": ("NAME: let another model go on", self._switch),
            "/system": ("TEXT: what the model is told beforehand; alone: nothing", self._tell),
            "/reset": ("forget the turns so far", self._reset),
            "/help": ("these lines", self._help),
            "/exit": ("end the chat, as Ctrl-D does", self._end),
        }
        self._is_over = False

    def run(self) -> None:
        """Take turns until Ctrl-D."""
        with _history(self._completed):
            for line in self._lines():
                try:
                    self._take(line)
                except OvertoneError as error:
                    if isinstance(error, ModelNotFound):
                        error.message += near_names(self._client, error.message)
                    report(error, as_json=False)

    def _lines(self) -> Iterator[str]:
        while not self._is_over:
            try:
                line = input(f"{printable(self._name)}> ").strip()
            except EOFError:
                typer.echo()
                return
            except KeyboardInterrupt:
                typer.echo(f"\n{_ENDS}", err=True)
                continue
            if line:
                yield line

    def _take(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word in self._commands:
            self._commands[word][1](rest.strip())
        elif line.startswith("/"):
            typer.echo(f"there is no {word}; {_ENDS}", err=True)
        else:
            self._ask(line)

    def _ask(self, question: str) -> None:
        told = [] if self._system is None else [_turn("system", self._system)]
        asked = [*self._turns, _turn("user", question)]
        said: list[str] = []
        with closing(
            self._client.stream_chat(self._name, [*told, *asked], **self._params)
        ) as chunks:
            try:
                print_all(chunks, said)
            except KeyboardInterrupt:
                typer.echo("\n(stopped)", err=True)
        if said:
            self._turns = [*asked, _turn("assistant", "".join(said))]

    def _switch(self, name: str) -> None:
        if not name:
            typer.echo(f"{printable(self._name)} answers; /adapter NAME lets another one go on")
            return
        self._client.model(name)
        self._name = name

    def _tell(self, text: str) -> None:
        self._system = text or None
        typer.echo("told beforehand" if text else "nothing is told beforehand")

    def _reset(self, _: str) -> None:
        self._turns = []
        typer.echo("the turns so far are forgotten")

    def _help(self, _: str) -> None:
        for word, (meaning, _run) in self._commands.items():
            typer.echo(f"{word:9} {meaning}")
        typer.echo("Ctrl-C stops an answer.")

    def _end(self, _: str) -> None:
        self._is_over = True

    def _completed(self, line: str) -> list[str]:
        """What the line that is typed may become."""
        if not line.startswith("/adapter "):
            return [word for word in self._commands if word.startswith(line)]
        return self._offered(line.removeprefix("/adapter "))


@contextmanager
def _history(complete: Callable[[str], list[str]]) -> Iterator[None]:
    """Lines that can be edited, and come back with the arrow keys, also those of earlier chats."""
    try:
        import readline  # here, because it changes how every question of the program is asked
    except ImportError:  # Windows: lines are typed without history
        yield
        return
    state = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    path = state / "overtone" / "chat_history"
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)  # what is asked may be private
        readline.read_history_file(path)
    readline.set_history_length(_KEPT_LINES)
    readline.set_completer_delims(" ")

    found: list[str] = []

    def completer(_: str, number: int) -> str | None:
        if number == 0:  # it is called for one number after another, until None
            found[:] = complete(readline.get_line_buffer())
        return found[number] if number < len(found) else None

    readline.set_completer(completer)
    readline.parse_and_bind("tab: complete")
    try:
        yield
    finally:
        with suppress(OSError):
            readline.write_history_file(path)


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
