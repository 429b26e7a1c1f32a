"""LlamaIndex's OpenAILike: completions, chats, streams, tools, structured output."""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import openai
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

url, folder = sys.argv[1], Path(sys.argv[2])


class Animal(BaseModel):
    name: Literal["cat", "dog"]
    legs: Literal[2, 4]


def body(name: str) -> dict[str, Any]:
    return dict(json.loads((folder / f"{name}.json").read_bytes()))


def model(name: str, **more: Any) -> OpenAILike:
    given = body(name)
    length = given.get("max_completion_tokens", given.get("max_tokens"))
    return OpenAILike(
        model=given["model"],
        api_base=f"{url}/v1",
        api_key="none",
        max_retries=0,
        temperature=0,
        max_tokens=length,
        context_window=1024,
        **more,
    )


def messages(name: str) -> list[ChatMessage]:
    return [ChatMessage(**message) for message in body(name)["messages"]]


def streamed() -> dict[str, Any]:
    *_, last = model("chat", is_chat_model=True).stream_chat(messages("chat"))
    raw = last.raw
    reason = raw.choices[0].finish_reason if raw.choices else None
    return {"text": last.message.content, "finish_reason": reason}


def called() -> dict[str, Any]:
    (given,) = body("tools")["tools"]
    function = given["function"]

    def weigh(animal: Literal["cat", "dog"], kilograms: Literal[1, 2]) -> str:
        return f"{animal}: {kilograms}"

    tool = FunctionTool.from_defaults(
        weigh, name=function["name"], description=function["description"]
    )
    chosen = model("tools", is_chat_model=True, is_function_calling_model=True)
    answer = chosen.chat_with_tools(
        [tool], chat_history=messages("tools"), tool_required=True, allow_parallel_tool_calls=False
    )
    (call,) = chosen.get_tool_calls_from_response(answer)
    return {"name": call.tool_name, "arguments": call.tool_kwargs}


def structured() -> dict[str, Any]:
    chosen = model("structured", is_chat_model=True, should_use_structured_outputs=True)
    answer = chosen.chat(
        messages("structured"), response_format=body("structured")["response_format"]
    )
    return Animal.model_validate_json(answer.message.content).model_dump()


def refused(name: str) -> dict[str, Any]:
    try:
        model(name).complete(body(name)["prompt"])
    except openai.APIStatusError as error:
        return {"status": error.status_code, "code": error.code}
    raise AssertionError("nothing was refused")


def main() -> None:
    answers = {
        "completion": model("completion").complete(body("completion")["prompt"]).text,
        "chat": model("chat", is_chat_model=True).chat(messages("chat")).message.content,
        "stream": streamed(),
        "error": refused("error"),
        "long": refused("long"),
        "tools": called(),
        "structured": structured(),
    }
    name = f"llama-index-llms-openai-like {version('llama-index-llms-openai-like')}"
    cannot = ["upload", "tool_stream"]
    print(json.dumps({"client": name, "answers": answers, "cannot": cannot}))


main()
