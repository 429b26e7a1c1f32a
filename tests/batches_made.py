"""Small batches for the tests of what surrounds them."""

import json
from collections.abc import Mapping
from typing import Any

from jobs_made import upload
from registry.batches.batches import Batches
from registry.batches.claims import BatchClaims
from registry.batches.record import BatchRecord, BatchSpec
from registry.files import FileRecord, Files

BASE = "tiny"


def request(number: int | str, url: str = "/v1/completions", **body: Any) -> dict[str, Any]:
    """Return one line of a batch's file, as an object."""
    given = {"model": BASE, "prompt": f"Once {number}", **body}
    return {"custom_id": f"request-{number}", "method": "POST", "url": url, "body": given}


def lines(*objects: Mapping[str, Any] | str) -> bytes:
    """Return a JSONL file; texts are taken as they are."""
    texts = [one if isinstance(one, str) else json.dumps(one) for one in objects]
    return "".join(f"{text}\n" for text in texts).encode()


def file_of(files: Files, num_requests: int = 3, **changes: Any) -> FileRecord:
    """Put a file of requests."""
    content = lines(*map(request, range(num_requests)))
    return upload(files, content, **{"purpose": "batch", "filename": "in.jsonl", **changes})


def spec_on(file: FileRecord | str, **changes: Any) -> BatchSpec:
    """Return a batch's spec over an uploaded file."""
    words = {
        "endpoint": "/v1/completions",
        "input_file": file if isinstance(file, str) else file.id,
        "base_name": BASE,
        "window_s": 86_400.0,
        "created_by": "me",
    }
    return BatchSpec(**{**words, **changes})


def create(batches: Batches, files: Files, *, now: float = 2.0, **changes: Any) -> BatchRecord:
    """Create a batch of three requests."""
    tenant = changes.get("created_by", "me")
    return batches.create(spec_on(file_of(files, created_by=tenant), **changes), 3, now=now)


def claimed(claims: BatchClaims, record: BatchRecord, owner: str = "one") -> BatchRecord:
    """Claim a batch, which must be free."""
    held = claims.claim(record, owner)
    assert held is not None
    return held
