"""instructor over OpenAI's library: a model from a tool call, and from structured output."""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import httpx
import instructor
from openai import OpenAI
from pydantic import BaseModel, ConfigDict

url, folder = sys.argv[1], Path(sys.argv[2])


class Animal(BaseModel):
    model_config = ConfigDict(extra="forbid")  # a random base would write others for ever

    name: Literal["cat", "dog"]
    legs: Literal[2, 4]


def line_breaks() -> dict[str, int]:
    """Return the bias under which a random base indents no JSON, which has no room for it."""
    asked = httpx.post(f"{url}/tokenize", json={"prompt": "\r\n", "add_special_tokens": False})
    return {str(token): -100 for token in asked.json()["tokens"]}


def ask(mode: instructor.Mode, **more: Any) -> Animal:
    """Return a checked model; instructor writes prompts of its own, so answers are its own, too."""
    given = json.loads((folder / "structured.json").read_bytes())
    del given["response_format"]
    given |= {"logit_bias": line_breaks(), "max_completion_tokens": 200, **more}
    plain = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    client = instructor.from_openai(plain, mode=mode)
    animal = client.chat.completions.create(**given, response_model=Animal, max_retries=0)
    assert isinstance(animal, Animal)
    return animal


def main() -> None:
    ask(instructor.Mode.TOOLS, parallel_tool_calls=False)
    ask(instructor.Mode.JSON_SCHEMA)
    cannot = ["completion", "chat", "stream", "error", "long", "upload"]
    cannot += ["tools", "tool_stream", "structured"]
    name = f"instructor {version('instructor')}"
    print(json.dumps({"client": name, "answers": {}, "cannot": cannot}))


main()
