"""requests."""

import json
import sys
from pathlib import Path
from typing import Any

import requests

url, folder = sys.argv[1], Path(sys.argv[2])
session = requests.Session()
session.trust_env = False


def ask(path: str, **what: Any) -> list[object]:
    answer = session.post(url + path, timeout=60, **what)
    return [answer.status_code, answer.content.decode()]


def post(path: str, name: str) -> list[object]:
    return ask(path, json=json.loads((folder / f"{name}.json").read_bytes()))


def stream() -> list[object]:
    body = json.loads((folder / "stream.json").read_bytes())
    where = f"{url}/v1/chat/completions"
    with session.post(where, json=body, stream=True, timeout=60) as answer:
        lines = [line.decode() for line in answer.iter_lines()]
    return [answer.status_code, "\n".join(lines)]


with (folder / "training.jsonl").open("rb") as file:
    upload = ask("/v1/files", data={"purpose": "fine-tune"}, files={"file": file})
raw = {
    "completion": post("/v1/completions", "completion"),
    "chat": post("/v1/chat/completions", "chat"),
    "stream": stream(),
    "error": post("/v1/completions", "error"),
    "long": post("/v1/completions", "long"),
    "upload": upload,
}
print(json.dumps({"client": f"requests {requests.__version__}", "raw": raw}))
