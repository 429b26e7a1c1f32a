"""Python's urllib.request, with a form written by hand."""

import json
import platform
import sys
import urllib.error
import urllib.request
from pathlib import Path

url, folder = sys.argv[1], Path(sys.argv[2])
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(path: str, body: bytes, content_type: str) -> list[object]:
    request = urllib.request.Request(url + path, body, {"Content-Type": content_type})
    try:
        with opener.open(request, timeout=60) as answer:
            return [answer.status, answer.read().decode()]
    except urllib.error.HTTPError as error:
        return [error.code, error.read().decode()]


def post(path: str, name: str) -> list[object]:
    return ask(path, (folder / f"{name}.json").read_bytes(), "application/json")


form = (
    b'--cut\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--cut\r\n'
    b'Content-Disposition: form-data; name="file"; filename="training.jsonl"\r\n\r\n'
    + (folder / "training.jsonl").read_bytes()
    + b"\r\n--cut--\r\n"
)
raw = {
    "completion": post("/v1/completions", "completion"),
    "chat": post("/v1/chat/completions", "chat"),
    "stream": post("/v1/chat/completions", "stream"),
    "error": post("/v1/completions", "error"),
    "long": post("/v1/completions", "long"),
    "upload": ask("/v1/files", form, "multipart/form-data; boundary=cut"),
}
print(json.dumps({"client": f"urllib of Python {platform.python_version()}", "raw": raw}))
