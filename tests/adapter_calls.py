"""Calls about adapters over REST, and the files that a server keeps of them."""

from pathlib import Path
from typing import Any

import spectra
from live import Live


def names(server: Live, **query: Any) -> list[str]:
    page = server.http.get("/v1/adapters", params={"limit": 1000, **query}).json()
    return [record["name"] for record in page["data"]]


def blobs(server: Live) -> set[Path]:
    folder = server.settings.data / "blobs"
    return {path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def put(server: Live, name: str, seed: int, **fields: str) -> dict[str, Any]:
    answer = server.upload(name, spectra.files(seed), **fields)
    assert answer.status_code in (200, 201), answer.text
    record: dict[str, Any] = answer.json()
    return record
