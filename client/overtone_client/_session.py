"""What all commands share: global options, output for people or as JSON, and errors."""

import json
import logging
import os
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unicodedata import category

import typer
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from ._near_names import near_names
from ._sync.client import Client
from .errors import APIError, InvalidArgument, ModelNotFound, OvertoneError

API_ERROR, USAGE_ERROR, INTERRUPTED = 1, 2, 130  # exit codes

_WIDE = 1000  # characters of a line where nothing limits it
TRY_LATER = "try again in a moment"
NEXT_STEPS: Mapping[str, str] = {
    "deadline_exceeded": "give it more time (timeout_s), or ask for fewer tokens",
    "unsupported_parameter": "leave it out, or see the server's /openapi.json",
    "context_length_exceeded": "shorten the prompt, or ask for fewer tokens with --max-tokens",
    "invalid_api_key": "set OVERTONE_API_KEY, or give --api-key",
    "not_owner": "upload one of your own name, or ask its owner",
    "insufficient_scope": "ask the server's operator for a key that may do this",
    "model_not_found": "`overtone list` and `overtone models` show what is there",
    "not_found": "`overtone list` shows what is there; `overtone show NAME` its versions",
    "base_mismatch": "`overtone models` shows this server's base; train the adapter for it",
    "name_conflict": "see `overtone show NAME`; for an upload, choose another --name",
    "adapter_in_use": "move its aliases with `overtone alias` first",
    "precondition_failed": "another caller moved it: see `overtone show NAME` and try again",
    "too_large": "the server's operator can raise the limit",
    "invalid_adapter": "check file and config against the method and the base",
    "unknown_method": "name one of these; or the server is older than the adapter",
    "unused_tensors": "save it again for this base's modules",
    "no_effect": "train it first: this one changes nothing",
    "non_finite": "training diverged: train again with a smaller learning rate",
    "overloaded": TRY_LATER,
    "quota_exceeded": "`overtone tenants usage` shows what is used",
    "rate_limit_exceeded": "`overtone tenants usage` shows what is used",
    "out_of_memory": f"{TRY_LATER}, or send a shorter prompt",
    "registry_unavailable": f"{TRY_LATER}; the server's operator can run `overtone doctor`",
    "draining": f"{TRY_LATER}: the server is restarting",
    "not_ready": f"{TRY_LATER}: the server is starting",
    "timeout": f"{TRY_LATER}, or look at the server",
    "connection_lost": "look at the server, then try again",
    "invalid_training_file": "correct these lines, then try again",
    "invalid_batch_file": "correct these lines, then try again",
    "invalid_hyperparameter": "`overtone train --help`; docs/operations.md lists them",
    "loss_diverged": "train with a smaller --set learning_rate_multiplier=0.3",
    "loss_not_finite": "train with a smaller --set learning_rate_multiplier=0.3",
    "storage_full": "delete files that are not needed, or ask the server's operator",
    "invalid_response": "check --url or OVERTONE_URL",
}
#: What the server does not find -> the command that lists what there is.
LISTS: Mapping[str, str] = {
    "API key": "keys list",
    "batch": "batch list",
    "file": "files list",
    "job": "jobs",
}
_NOT_FOUND = re.compile(f"no (?:fine-tuning )?({'|'.join(LISTS)}) ")


@dataclass(frozen=True)
class Session:
    """The program's global options; commands of the application find it as `ctx.obj`.

    Args:
        url: the server.
        api_key: its key, if it wants one.
        as_json: exactly one JSON document on standard output, and nothing for people.
        acting_for: the tenant that an operator's requests are for.
    """

    url: str
    api_key: str | None
    as_json: bool
    acting_for: str | None = None

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A client for the server; of a name that is not there, similar ones are said."""
        if not self.as_json and sys.stderr.isatty():
            _tell_of_pauses()
        with Client(self.url, self.api_key, acting_for=self.acting_for) as client:
            try:
                yield client
            except ModelNotFound as error:
                error.message += near_names(client, error.message)
                raise

    def emit(self, document: Any, rendering: RenderableType) -> None:
        """Print the result: the document for a program, the rendering for a person."""
        if self.as_json:
            typer.echo(json.dumps(document, indent=2))
        else:
            # Text is left to the terminal to wrap, and a pipe has no width: what is copied or
            # read by a program has no line breaks of ours in it.
            width = None if is_terminal() or "COLUMNS" in os.environ else _WIDE
            console = Console(highlight=False, markup=False, width=width)
            console.print(rendering, soft_wrap=isinstance(rendering, Text))

    def emit_list(
        self, data: Sequence[Any], rendering: RenderableType, *, has_more: bool = False
    ) -> None:
        """Print a list, and say on standard error if it goes on."""
        self.emit({"object": "list", "data": data, "has_more": has_more}, rendering)
        if has_more and not self.as_json:
            typer.echo(f"There are more than these {len(data)}: --limit", err=True)


def _tell_of_pauses() -> None:
    """Say on standard error that a busy server is asked again; a person would wonder."""
    log = logging.getLogger("overtone_client")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(_PrintableFormatter())
        log.addHandler(handler)
        log.setLevel(logging.INFO)


class _PrintableFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def report(error: OvertoneError, as_json: bool) -> int:
    """Print an error on standard error, as one line or as JSON, and return the exit code."""
    fault: dict[str, Any] = {
        "message": error.message,
        "code": error.code,
        "next_step": _next_step(error),
    }
    if isinstance(error, APIError):
        fault |= {"status": error.status, "param": error.param, "request_id": error.request_id}
    _complain(fault, as_json)
    return USAGE_ERROR if isinstance(error, InvalidArgument) else API_ERROR


def report_usage(message: str, next_step: str, as_json: bool) -> int:
    """The same for a command line that cannot be understood."""
    _complain({"message": message, "code": "usage", "next_step": next_step}, as_json)
    return USAGE_ERROR


def report_interruption(as_json: bool) -> None:
    """Say that Ctrl-C has ended the command."""
    if as_json:
        _complain(
            {"message": "Ctrl-C has ended it", "code": "interrupted", "next_step": None}, True
        )
    else:
        typer.echo("interrupted", err=True)


def printable(text: str) -> str:
    """The text without control characters: what a model says must not steer the terminal."""
    return "".join(mark for mark in text if mark in "\n\t" or category(mark) != "Cc")


def facts(rows: Mapping[str, Any]) -> Text:
    """Names and values, one a line, or more where a value has several words; no word is broken."""
    kept = {name: str(value) for name, value in rows.items() if value not in (None, "", {}, [])}
    indent = max((len(name) for name in kept), default=0) + 2
    width = Console().width if is_terminal() else _WIDE
    text = Text()
    for name, value in kept.items():
        lines = textwrap.wrap(
            printable(value),
            max(width - indent, 20),
            break_long_words=False,
            break_on_hyphens=False,
        )
        text.append(name.ljust(indent), "bold")
        text.append(f"\n{' ' * indent}".join(lines) + "\n")
    text.rstrip()
    return text


def plain_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table without lines, and without the columns that are empty; the first is never broken."""
    kept = [i for i in range(len(titles)) if any(row[i] for row in rows)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i in kept:
        table.add_column(titles[i], overflow="fold", no_wrap=i == 0)
    for row in rows:
        table.add_row(*(Text(printable(row[i])) for i in kept))
    return table


def is_terminal() -> bool:
    """True when the output is a terminal, which has lines of a limited length."""
    return sys.stdout.isatty()


def is_interactive() -> bool:
    """True when input and output are terminals."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def _complain(fault: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"error": fault}), err=True)
        return
    step = f" ({fault['next_step']})" if fault["next_step"] else ""
    line = f"error: {fault['code']}: {fault['message']}{step}"
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    console.print(" ".join(printable(line).split()), style="red")


def _next_step(error: OvertoneError) -> str | None:
    if isinstance(error, APIError) and error.retry_after is not None:
        return f"try again in {error.retry_after:g} s"
    if isinstance(error, APIError) and error.code == "internal_error" and error.request_id:
        return f"tell the server's operator the request id {error.request_id}"
    if error.code == "invalid_request" and "chat template" in error.message.lower():
        return "this base has no chat template: use `overtone complete NAME PROMPT`"
    what = _NOT_FOUND.match(error.message)
    if error.code == "not_found" and what:
        return f"`overtone {LISTS[what[1]]}` lists them"
    if TRY_LATER in error.message:
        return None  # the server has said it
    return NEXT_STEPS.get(error.code) or NEXT_STEPS.get(type(error).code)
