"""instructor over OpenAI's library: a model from a tool call, and from structured output."""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import instructor
from openai import OpenAI
from pydantic import BaseModel

url, folder = sys.argv[1], Path(sys.argv[2])


class Animal(BaseModel):
    name: Literal["cat", "dog"]
    legs: Literal[2, 4]


def ask(mode: instructor.Mode, **more: Any) -> dict[str, Any]:
    given = json.loads((folder / "structured.json").read_bytes())
    del given["response_format"]
    given |= more
    plain = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    client = instructor.from_openai(plain, mode=mode)
    animal = client.chat.completions.create(**given, response_model=Animal, max_retries=0)
    return dict(animal.model_dump())


def main() -> None:
    by_tool = ask(instructor.Mode.TOOLS, max_completion_tokens=500, parallel_tool_calls=False)
    assert by_tool.keys() == {"name", "legs"}
    answers = {"structured": ask(instructor.Mode.JSON_SCHEMA)}
    cannot = ["completion", "chat", "stream", "error", "long", "upload", "tools", "tool_stream"]
    name = f"instructor {version('instructor')}"
    print(json.dumps({"client": name, "answers": answers, "cannot": cannot}))


main()
