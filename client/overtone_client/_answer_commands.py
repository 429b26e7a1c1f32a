"""The commands that ask a model: chat, complete, and the list of models."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ._answer_form import Choices, GrammarFile, Regex, SchemaFile, answer_form, json_of
from ._session import API_ERROR, Session, is_interactive, printable, report
from .client import Client
from .errors import InvalidArgument, OvertoneError
from .types import AnsweredBy, ChatChoice, ChatChunk, Comparison, CompletionChunk

ModelName = Annotated[
    str, typer.Argument(metavar="NAME", help="NAME, NAME@3, NAME@prod, NAME@sha256:… or the base.")
]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="At most so many new tokens.")]
Temperature = Annotated[
    float | None, typer.Option(min=0, help="0 always takes the likeliest token.")
]
TopK = Annotated[
    int | None, typer.Option(min=-1, help="Only so many of the likeliest tokens; 0 for all.")
]
TopP = Annotated[
    float | None, typer.Option(help="Only the likeliest tokens that have this share together.")
]
MinP = Annotated[
    float | None, typer.Option(help="Only tokens at least this share as likely as the likeliest.")
]
RepetitionPenalty = Annotated[
    float | None, typer.Option(help="Above 1, tokens that are there already are less likely.")
]
Seed = Annotated[int | None, typer.Option(help="The same seed gives the same answer.")]
Tools = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Functions it may call: JSON, as OpenAI's `tools`."),
]
ToolChoice = Annotated[
    str | None,
    typer.Option(metavar="CHOICE", help="auto, none, required, or the function it must call."),
]


def models(ctx: typer.Context) -> None:
    """List what can be asked: the base and its adapters."""
    session: Session = ctx.obj
    with session.client() as client:
        found = client.models()
    table = Table("MODEL", "BASE", box=None, pad_edge=False, header_style="bold")
    for model in found:
        table.add_row(Text(printable(model.id)), Text(printable(model.parent or "")))
    session.emit_list([model.raw for model in found], table)


def complete(  # noqa: PLR0913 (the options of a command)
    ctx: typer.Context,
    name: ModelName,
    prompt: Annotated[str, typer.Argument(help="The text to continue; - reads standard input.")],
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = None,
    seed: Seed = None,
    json_schema: SchemaFile = None,
    regex: Regex = None,
    choice: Choices = None,
    grammar: GrammarFile = None,
) -> None:
    """Continue a text, token by token."""
    session: Session = ctx.obj
    text = sys.stdin.read() if prompt == "-" else prompt
    params = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
        **answer_form(json_schema, regex, choice, grammar),
    }
    with session.client() as client:
        if session.as_json:
            session.emit(client.complete(name, text, **params).raw, "")
        else:
            _print_all(client.stream_complete(name, text, **params))


def chat(  # noqa: PLR0913 (the options of a command)
    ctx: typer.Context,
    name: ModelName,
    message: Annotated[
        str | None, typer.Option("--message", "-m", help="Ask this one thing and end.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="What the model is told beforehand.")] = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = None,
    seed: Seed = None,
    tools: Tools = None,
    tool_choice: ToolChoice = None,
    json_schema: SchemaFile = None,
    regex: Regex = None,
    choice: Choices = None,
    grammar: GrammarFile = None,
) -> None:
    """Chat with a model; without --message, turn by turn until Ctrl-D."""
    session: Session = ctx.obj
    asks = message is None and is_interactive() and not session.as_json
    if tools is not None and asks:
        raise InvalidArgument("calls of functions are answered by a program: give --message")
    params = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
        **_tool_params(tools, tool_choice),
        **answer_form(json_schema, regex, choice, grammar),
    }
    messages = [] if system is None else [_turn("system", system)]
    with session.client() as client:
        if asks:
            _converse(client, name, messages, params)
            return
        messages.append(_turn("user", _given(message)))
        if session.as_json:
            session.emit(client.chat(name, messages, **params).raw, "")
        else:
            _print_all(client.stream_chat(name, messages, **params))


def compare(  # noqa: PLR0913 (the options of a command)
    ctx: typer.Context,
    names: Annotated[
        list[str], typer.Argument(metavar="NAME…", help="Up to 16 names as in complete.")
    ],
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="The text to continue; - reads it.")
    ] = None,
    message: Annotated[
        str | None, typer.Option("--message", "-m", help="Ask this in a chat instead.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="What they are told beforehand.")] = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    seed: Annotated[int | None, typer.Option(help="Of all; one is drawn if it is missing.")] = None,
) -> None:
    """Ask several models the same, side by side in one batch; exit code 1 if one of them fails."""
    session: Session = ctx.obj
    params = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    if (prompt is None) == (message is None) or (system is not None and message is None):
        raise InvalidArgument("give --prompt, or --message with or without --system")
    text = sys.stdin.read() if prompt == "-" else prompt
    turns = [] if system is None else [_turn("system", system)]
    messages = None if message is None else [*turns, _turn("user", message)]
    with session.client() as client:
        found = client.compare(names, text, messages=messages, **params)
    session.emit(found.raw, _side_by_side(found))
    if any(each.error for each in found.answers):
        raise typer.Exit(API_ERROR)


def _side_by_side(found: Comparison) -> Text:
    """Each model's name above what it said."""
    text = Text()
    for each in found.answers:
        text.append(f"{printable(each.model)}\n", "bold")
        if each.error is None:
            text.append(f"{printable(each.text)}\n\n")
        else:
            text.append(f"error: {each.error.code}: {printable(each.error.message)}\n\n", "red")
    text.rstrip()
    return text


def _converse(
    client: Client, name: str, messages: list[dict[str, str]], params: dict[str, Any]
) -> None:
    """Turn by turn; a failed turn is reported and left out of the conversation."""
    for question in _questions():
        asked = [*messages, _turn("user", question)]
        try:
            answer = _print_all(client.stream_chat(name, asked, **params))
        except OvertoneError as error:
            report(error, as_json=False)
        else:
            messages[:] = [*asked, _turn("assistant", answer)]


def _questions() -> Iterator[str]:
    """What the person types, until Ctrl-D."""
    while True:
        try:
            question = input("> ").strip()
        except EOFError:
            typer.echo()
            return
        if question:
            yield question


def _given(message: str | None) -> str:
    if message is not None:
        return message
    if sys.stdin.isatty():
        raise InvalidArgument("this is not a terminal, so it cannot ask: give --message")
    return sys.stdin.read()


def _print_all(chunks: Iterable[CompletionChunk | ChatChunk]) -> str:
    """Print an answer as it arrives, say what answered, and return the text."""
    pieces: list[str] = []
    answered_by: AnsweredBy | None = None
    for chunk in chunks:
        answered_by = chunk.answered_by or answered_by
        pieces.append(chunk.text)
        typer.echo(printable(chunk.text + _calls_in(chunk)), nl=False)
        sys.stdout.flush()
    typer.echo()
    if answered_by and answered_by.adapter and sys.stderr.isatty():
        answered = f"[{answered_by.adapter}@{answered_by.version} {answered_by.mode}]"
        Console(stderr=True, highlight=False, markup=False).print(printable(answered), style="dim")
    return "".join(pieces)


def _calls_in(chunk: CompletionChunk | ChatChunk) -> str:
    """What a chunk has of calls: each on a line of its own, its name before its arguments."""
    calls = [call for c in chunk.choices if isinstance(c, ChatChoice) for call in c.tool_calls]
    names = ["" if call.name is None else f"\n{call.name} " for call in calls]
    return "".join(name + call.arguments for name, call in zip(names, calls, strict=True))


def _tool_params(tools: Path | None, choice: str | None) -> dict[str, Any]:
    """The parameters that say what may be called."""
    if tools is None:
        if choice is not None:
            raise InvalidArgument("--tool-choice needs --tools")
        return {}
    params: dict[str, Any] = {"tools": json_of(tools)}
    if choice in (None, "auto", "none", "required"):
        return params | {"tool_choice": choice}
    return params | {"tool_choice": {"type": "function", "function": {"name": choice}}}


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
