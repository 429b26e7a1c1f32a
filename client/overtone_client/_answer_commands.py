"""The commands that ask a model: chat, complete, and the list of models."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ._answer_form import Choices, GrammarFile, Regex, SchemaFile, answer_form
from ._answer_print import print_all
from ._chat import Chat
from ._completion import adapter_names_of, model_names
from ._input_texts import json_of, whole_input
from ._session import Session, is_interactive, plain_table
from .errors import InvalidArgument

ModelName = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="NAME, NAME@3, NAME@prod, NAME@sha256:… or the base.",
        autocompletion=model_names,
    ),
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


def models(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(help="Only this one, by any of its names.", autocompletion=model_names),
    ] = None,
) -> None:
    """List what can be asked: the base and its adapters."""
    session: Session = ctx.obj
    with session.client() as client:
        found = client.models() if name is None else [client.model(name)]
    table = plain_table(("MODEL", "BASE"), [(one.id, one.parent or "") for one in found])
    if name is None:
        session.emit_list([model.raw for model in found], table)
    else:
        session.emit(found[0].raw, table)


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
            print_all(client.stream_complete(name, text, **params))


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
    """Chat with a model, turn by turn or --message alone.

    In a chat, /help lists what else can be typed, and Ctrl-C stops an answer.
    """
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
    with session.client() as client:
        if asks:
            Chat(client, name, system, params, partial(adapter_names_of, session)).run()
            return
        messages = [] if system is None else [{"role": "system", "content": system}]
        messages.append({"role": "user", "content": _given(message)})
        if session.as_json:
            session.emit(client.chat(name, messages, **params).raw, "")
        else:
            print_all(client.stream_chat(name, messages, **params))


def _given(message: str | None) -> str:
    if message is not None:
        return message
    if sys.stdin.isatty():
        told = "a chat needs a terminal for what is typed and what is said, and no --json"
        raise InvalidArgument(f"{told}: give --message")
    return whole_input()


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
