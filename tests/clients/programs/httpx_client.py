"""httpx, asynchronous, several requests at a time over one pool."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx

url, folder = sys.argv[1], Path(sys.argv[2])


async def ask(client: httpx.AsyncClient, path: str, **what: Any) -> list[object]:
    answer = await client.post(path, **what)
    return [answer.status_code, answer.text]


async def post(client: httpx.AsyncClient, path: str, name: str) -> list[object]:
    return await ask(client, path, json=json.loads((folder / f"{name}.json").read_bytes()))


async def stream(client: httpx.AsyncClient) -> list[object]:
    body = json.loads((folder / "stream.json").read_bytes())
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        lines = [line async for line in answer.aiter_lines()]
    return [answer.status_code, "\n".join(lines)]


async def main() -> None:
    file = {"file": ("training.jsonl", (folder / "training.jsonl").read_bytes())}
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
        asked = {
            "completion": post(client, "/v1/completions", "completion"),
            "chat": post(client, "/v1/chat/completions", "chat"),
            "stream": stream(client),
            "error": post(client, "/v1/completions", "error"),
            "long": post(client, "/v1/completions", "long"),
            "upload": ask(client, "/v1/files", data={"purpose": "fine-tune"}, files=file),
        }
        answers = await asyncio.gather(*asked.values())
    raw = dict(zip(asked, answers, strict=True))
    print(json.dumps({"client": f"httpx {httpx.__version__}", "raw": raw}))


asyncio.run(main())
