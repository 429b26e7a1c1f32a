"""LangChain's OpenAI and ChatOpenAI; the usage of a stream's summed chunks is the answer's."""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import openai
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel

url, folder = sys.argv[1], Path(sys.argv[2])
server = {"base_url": f"{url}/v1", "api_key": "none", "max_retries": 0}


class Animal(BaseModel):
    name: Literal["cat", "dog"]
    legs: Literal[2, 4]


def body(name: str) -> dict[str, Any]:
    return dict(json.loads((folder / f"{name}.json").read_bytes()))


def model(name: str, **more: Any) -> ChatOpenAI:
    given = body(name)
    kept = {"model": given["model"], "temperature": given["temperature"]}
    return ChatOpenAI(**server, **kept, max_tokens=given["max_completion_tokens"], **more)


def text_model(name: str) -> OpenAI:
    given = {"temperature": 0} | body(name)
    prompt = given.pop("prompt")
    assert prompt
    return OpenAI(**server, **given)


def streamed() -> dict[str, Any]:
    chunks = list(model("chat", stream_usage=True).stream(body("chat")["messages"]))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    asked = model("chat").invoke(body("chat")["messages"])
    assert whole.usage_metadata["total_tokens"] == asked.usage_metadata["total_tokens"]
    return {"text": whole.content, "finish_reason": whole.response_metadata["finish_reason"]}


def called(streams: bool) -> dict[str, Any]:
    given = body("tools")
    bound = model("tools").bind_tools(
        given["tools"], tool_choice="required", parallel_tool_calls=False
    )
    if streams:
        chunks = list(bound.stream(given["messages"]))
        message = chunks[0]
        for chunk in chunks[1:]:
            message += chunk
    else:
        message = bound.invoke(given["messages"])
    (call,) = message.tool_calls
    return {"name": call["name"], "arguments": call["args"]}


def structured() -> dict[str, Any]:
    bound = model("structured").with_structured_output(Animal, method="json_schema")
    return bound.invoke(body("structured")["messages"]).model_dump()


def refused(name: str) -> dict[str, Any]:
    try:
        text_model(name).invoke(body(name)["prompt"])
    except openai.APIStatusError as error:
        return {"status": error.status_code, "code": error.code}
    raise AssertionError("nothing was refused")


def main() -> None:
    answers = {
        "completion": text_model("completion").invoke(body("completion")["prompt"]),
        "chat": model("chat").invoke(body("chat")["messages"]).content,
        "stream": streamed(),
        "error": refused("error"),
        "long": refused("long"),
        "tools": called(streams=False),
        "tool_stream": called(streams=True),
        "structured": structured(),
    }
    name = f"langchain-openai {version('langchain-openai')}"
    print(json.dumps({"client": name, "answers": answers, "cannot": ["upload"]}))


main()
