"""OpenAI's Python library: completions, chats, streams, tools, structured output, files, errors."""

import json
import sys
from pathlib import Path
from typing import Any, Literal

import openai
from openai import OpenAI
from pydantic import BaseModel

url, folder = sys.argv[1], Path(sys.argv[2])
client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


class Animal(BaseModel):
    name: Literal["cat", "dog"]
    legs: Literal[2, 4]


def body(name: str) -> dict[str, Any]:
    return dict(json.loads((folder / f"{name}.json").read_bytes()))


def streamed() -> dict[str, Any]:
    text, reason = "", None
    for chunk in client.chat.completions.create(**body("stream")):
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
    return {"text": text, "finish_reason": reason}


def streamed_tool() -> dict[str, Any]:
    with client.chat.completions.stream(**body("tools")) as stream:
        for _ in stream:
            pass
        message = stream.get_final_completion().choices[0].message
    return called(message)


def called(message: Any) -> dict[str, Any]:
    (call,) = message.tool_calls
    return {"name": call.function.name, "arguments": json.loads(call.function.arguments)}


def structured() -> dict[str, Any]:
    given = body("structured")
    del given["response_format"]
    answer = client.chat.completions.parse(**given, response_format=Animal)
    parsed = answer.choices[0].message.parsed
    assert parsed is not None
    return parsed.model_dump()


def refused(name: str) -> dict[str, Any]:
    try:
        client.completions.create(**body(name))
    except openai.APIStatusError as error:
        return {"status": error.status_code, "code": error.code}
    raise AssertionError("nothing was refused")


def main() -> None:
    with (folder / "training.jsonl").open("rb") as file:
        sent = client.files.create(file=file, purpose="fine-tune")
    chat = client.chat.completions.create(**body("chat"))
    answers = {
        "completion": client.completions.create(**body("completion")).choices[0].text,
        "chat": chat.choices[0].message.content,
        "stream": streamed(),
        "error": refused("error"),
        "long": refused("long"),
        "upload": {"filename": sent.filename, "bytes": sent.bytes},
        "tools": called(client.chat.completions.create(**body("tools")).choices[0].message),
        "tool_stream": streamed_tool(),
        "structured": structured(),
    }
    print(json.dumps({"client": f"openai {openai.__version__}", "answers": answers}))


main()
