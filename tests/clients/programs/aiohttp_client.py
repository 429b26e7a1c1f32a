"""aiohttp, several requests at a time over one pool."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import aiohttp

url, folder = sys.argv[1], Path(sys.argv[2])


async def ask(session: aiohttp.ClientSession, path: str, **what: Any) -> list[object]:
    async with session.post(path, **what) as answer:
        return [answer.status, await answer.text()]


async def post(session: aiohttp.ClientSession, path: str, name: str) -> list[object]:
    return await ask(session, path, json=json.loads((folder / f"{name}.json").read_bytes()))


async def stream(session: aiohttp.ClientSession) -> list[object]:
    body = json.loads((folder / "stream.json").read_bytes())
    async with session.post("/v1/chat/completions", json=body) as answer:
        lines = [line.decode() async for line in answer.content]
    return [answer.status, "".join(lines)]


async def main() -> None:
    form = aiohttp.FormData({"purpose": "fine-tune"})
    form.add_field("file", (folder / "training.jsonl").read_bytes(), filename="training.jsonl")
    async with aiohttp.ClientSession(url) as session:
        asked = {
            "completion": post(session, "/v1/completions", "completion"),
            "chat": post(session, "/v1/chat/completions", "chat"),
            "stream": stream(session),
            "error": post(session, "/v1/completions", "error"),
            "long": post(session, "/v1/completions", "long"),
            "upload": ask(session, "/v1/files", data=form),
        }
        answers = await asyncio.gather(*asked.values())
    raw = dict(zip(asked, answers, strict=True))
    print(json.dumps({"client": f"aiohttp {aiohttp.__version__}", "raw": raw}))


asyncio.run(main())
