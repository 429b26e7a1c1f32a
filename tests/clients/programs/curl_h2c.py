"""curl --http2: the first request of a connection offers h2c, body and all."""

import json
import subprocess
import sys
from pathlib import Path

url, folder = sys.argv[1], Path(sys.argv[2])
BASIC = ["curl", "--http2", "--silent", "--no-buffer", "--noproxy", "*", "--max-time", "60"]


def ask(path: str, *words: str) -> list[object]:
    done = subprocess.run(
        [*BASIC, "--write-out", "\n%{http_code}", f"{url}{path}", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    body, _, status = done.stdout.rpartition("\n")
    return [int(status), body]


def post(path: str, name: str) -> list[object]:
    return ask(path, "--json", f"@{folder / name}.json")


shown = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout
raw = {
    "completion": post("/v1/completions", "completion"),
    "chat": post("/v1/chat/completions", "chat"),
    "stream": post("/v1/chat/completions", "stream"),
    "error": post("/v1/completions", "error"),
    "long": post("/v1/completions", "long"),
    "upload": ask(
        "/v1/files", "--form", "purpose=fine-tune", "--form", f"file=@{folder / 'training.jsonl'}"
    ),
}
print(json.dumps({"client": " ".join(shown.split()[:2]) + " --http2", "raw": raw}))
