"""litellm with its `openai` and `text-completion-openai` providers; its own classes of errors."""

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the network for prices
import litellm

url, folder = sys.argv[1], Path(sys.argv[2])
litellm.suppress_debug_info = True
#: What litellm makes of an error -> the code that it stands for.
CODES = {
    litellm.NotFoundError: "model_not_found",
    litellm.ContextWindowExceededError: "context_length_exceeded",
}


def body(name: str, provider: str = "openai") -> dict[str, Any]:
    given: dict[str, Any] = json.loads((folder / f"{name}.json").read_bytes())
    given["model"] = f"{provider}/{given['model']}"
    return given | {"api_base": f"{url}/v1", "api_key": "none", "num_retries": 0}


def streamed(name: str) -> Any:
    given = body(name) | {"stream": True}
    return litellm.stream_chunk_builder(list(litellm.completion(**given))).choices[0]


def called(message: Any) -> dict[str, Any]:
    (call,) = message.tool_calls
    return {"name": call.function.name, "arguments": json.loads(call.function.arguments)}


def structured() -> Any:
    return json.loads(litellm.completion(**body("structured")).choices[0].message.content)


def refused(name: str) -> dict[str, Any]:
    try:
        litellm.text_completion(**body(name, "text-completion-openai"))
    except tuple(CODES) as error:
        return {"status": error.status_code, "code": CODES[type(error)]}
    raise AssertionError("nothing was refused")


def main() -> None:
    completion = litellm.text_completion(**body("completion", "text-completion-openai"))
    stream = streamed("stream")
    answers = {
        "completion": completion.choices[0].text,
        "chat": litellm.completion(**body("chat")).choices[0].message.content,
        "stream": {"text": stream.message.content, "finish_reason": stream.finish_reason},
        "error": refused("error"),
        "long": refused("long"),
        "tools": called(litellm.completion(**body("tools")).choices[0].message),
        "tool_stream": called(streamed("tools").message),
        "structured": structured(),
    }
    told = {"client": f"litellm {version('litellm')}", "answers": answers, "cannot": ["upload"]}
    print(json.dumps(told))


main()
