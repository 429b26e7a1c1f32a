"""Real clients, unmodified, against a real server: each a program of its own in programs/.

A program is called with the server's URL and a folder. It posts the folder's bodies, sends its
file, and prints one line of JSON, the last of its output:

    {"client": "NAME VERSION", "raw": {"completion": [STATUS, BODY], …}}     an HTTP client
    {"client": "NAME VERSION", "answers": {"completion": TEXT, …}}           a library of OpenAI's

with one entry for each name of `expected` below. A client that has no such call names it in a list
`"cannot"`. What a file's suffix is run by is in `COMMANDS`. A new client is one file more there,
and what it needs a line in requirements.txt or package.json.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

import spectra
import tiny
from demo_scene import running_demo
from program import Program
from waiting import until

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
ENVIRONMENT = ROOT / ".venv-clients"
#: Suffix -> what runs such a program; the tool, and its arguments before the program's path.
COMMANDS = {
    ".py": (str(ENVIRONMENT / "bin" / "python"),),
    ".mjs": ("node",),
    ".java": ("java",),
}
PROGRAMS = sorted(path for path in (HERE / "programs").iterdir() if path.suffix in COMMANDS)
_LIMIT_S = 120
MODEL = "poet"
ERRORS = ("error", "long")

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]


def bodies() -> dict[str, dict[str, Any]]:
    """Return what the programs post, by the names of their answers."""
    chat = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Grüße, 世界 🌍"}],
        "max_completion_tokens": 12,
        "temperature": 0,
    }
    return {
        "completion": {"model": MODEL, "prompt": "Once", "max_tokens": 12, "temperature": 0},
        "chat": chat,
        "stream": {**chat, "stream": True},
        "error": {"model": "nobody", "prompt": "Once"},
        "long": {"model": MODEL, "prompt": "too long " * 200_000, "max_tokens": 4},
        "tools": {
            **chat,
            "max_completion_tokens": 300,
            "tools": [WEIGH],
            "tool_choice": "required",
            "parallel_tool_calls": False,
        },
        "structured": {**chat, "max_completion_tokens": 100, "response_format": ANIMAL},
    }


def _object(**values: list[Any]) -> dict[str, Any]:
    """Return the strict schema of an object whose fields have few values: a random base ends it."""
    fields = {
        name: {"type": "string" if isinstance(some[0], str) else "integer", "enum": some}
        for name, some in values.items()
    }
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


WEIGH = {
    "type": "function",
    "function": {
        "name": "weigh",
        "description": "Weigh an animal.",
        "parameters": _object(animal=["cat", "dog"], kilograms=[1, 2]),
        "strict": True,
    },
}
ANIMAL = {
    "type": "json_schema",
    "json_schema": {
        "name": "Animal",
        "schema": _object(name=["cat", "dog"], legs=[2, 4]),
        "strict": True,
    },
}
#: What a library of OpenAI's does, and an HTTP client has no need to.
OF_LIBRARIES = ("tools", "tool_stream", "structured")


TRAINING = '{"prompt": "Grüße", "completion": "世界"}\n' * 5000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("asked")
    for name, body in bodies().items():
        (made / f"{name}.json").write_text(json.dumps(body))
    (made / "training.jsonl").write_text(TRAINING)
    return made


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    scratch = tmp_path_factory.mktemp("clients")
    base = tiny.save_base(scratch / "base", "llama")
    program = Program(base, scratch / "data", scratch / "log")
    try:
        made = program.upload(MODEL, spectra.files(1))
        assert made.status_code == 201, made.text
        yield program
    finally:
        program.close()


@pytest.fixture(scope="module")
def expected(server: Program) -> dict[str, Any]:
    """What the server answers to a client whose every byte is known."""

    def ask(path: str, name: str) -> httpx2.Response:
        return server.http.post(path, json=bodies()[name])

    completion = ask("/v1/completions", "completion").json()["choices"][0]["text"]
    (choice,) = ask("/v1/chat/completions", "chat").json()["choices"]
    chat = choice["message"]["content"]
    (call,) = ask("/v1/chat/completions", "tools").json()["choices"][0]["message"]["tool_calls"]
    (animal,) = ask("/v1/chat/completions", "structured").json()["choices"]
    tool = {
        "name": call["function"]["name"],
        "arguments": json.loads(call["function"]["arguments"]),
    }
    assert completion
    assert chat
    return {
        "completion": completion,
        "chat": chat,
        "stream": {"text": chat, "finish_reason": choice["finish_reason"]},
        "error": {"status": 404, "code": "model_not_found"},
        "long": {"status": 400, "code": "context_length_exceeded"},
        "tools": tool,
        "tool_stream": tool,
        "structured": json.loads(animal["message"]["content"]),
        "upload": {"filename": "training.jsonl", "bytes": len(TRAINING.encode())},
    }


def read(name: str, status: int, body: str) -> Any:
    """Return what `answers` would have of an answer as it came."""
    if name in ERRORS:
        return {"status": status, "code": json.loads(body)["error"]["code"]}
    assert status == 200, body
    if name == "stream":
        return read_stream(body)
    told = json.loads(body)
    if name == "upload":
        return {"filename": told["filename"], "bytes": told["bytes"]}
    (choice,) = told["choices"]
    return choice["text"] if name == "completion" else choice["message"]["content"]


def read_stream(body: str) -> dict[str, Any]:
    """Return the text and the end of a stream of server-sent events."""
    data = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data:")]
    assert data[-1] == "[DONE]"
    chunks = [json.loads(line) for line in data[:-1]]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    ends = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    assert len(ends) == 1
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    return {"text": text, "finish_reason": ends[0]}


def command(program: Path, scratch: Path) -> list[str]:
    """Return what runs a program; one of Node's lies beside its packages."""
    runner = COMMANDS[program.suffix]
    if not shutil.which(runner[0]):
        pytest.skip(f"{runner[0]} is not here; ./run test clients installs what may be")
    if program.suffix == ".mjs":
        modules = ENVIRONMENT / "node" / "node_modules"
        if modules.exists():
            (scratch / "node_modules").symlink_to(modules)
        program = Path(shutil.copy(program, scratch))
    return [*runner, str(program)]


def run(program: Path, scratch: Path, *arguments: str) -> dict[str, Any]:
    """Run a client to its end; return the document that it prints."""
    done = subprocess.run(
        [*command(program, scratch), *arguments],
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        env={**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "PYTHONPATH": ""},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return document


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_a_client_gets_what_the_server_answers(
    program: Path, server: Program, folder: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    told = run(program, tmp_path, server.url, str(folder))
    print(told["client"])
    raw = {name: read(name, *given) for name, given in told.get("raw", {}).items()}
    left_out = [*told.get("cannot", []), *(OF_LIBRARIES if raw else ())]
    wanted = {name: v for name, v in expected.items() if name not in left_out}
    assert raw | told.get("answers", {}) == wanted


def test_the_example_of_frameworks_runs(tmp_path: Path) -> None:
    with running_demo(tmp_path) as (port, _):
        example = ROOT / "examples" / "langchain_and_llamaindex.py"
        done = subprocess.run(
            [*COMMANDS[".py"], str(example)],
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            env={**os.environ, "OVERTONE_URL": f"http://127.0.0.1:{port}", "PYTHONPATH": ""},
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    chat, stream, held, completed = done.stdout.splitlines()
    said = chat.partition(": ")[2].strip()
    assert said in stream
    assert held.partition(": ")[2].strip() in ("'a right'", "'a duty'")
    assert len(completed.partition(": ")[2].strip()) > 2


def test_no_client_leaves_anything_open(server: Program) -> None:
    until(lambda: server.metrics("overtone_requests_running") == 0)
    assert server.metrics("overtone_requests_waiting") == 0
    assert "Traceback" not in server.log.read_text()
