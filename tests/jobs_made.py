"""Small jobs and files for the tests of what surrounds them."""

import secrets
from pathlib import Path
from typing import Any

from registry.adapters.adapters import Adapters
from registry.adapters.records import NewVersion
from registry.common.fence import Fence
from registry.files import FileRecord, Files
from registry.jobs.claims import Claims
from registry.jobs.record import JobError, JobRecord
from registry.jobs.spec import JobSpec

BASE = "tiny"
FAULT = JobError("out_of_memory", "no memory left", "batch_size")


def upload(files: Files, content: bytes = b'{"text": "a"}\n', **changes: Any) -> FileRecord:
    """Put a file with as few words as possible."""
    path = files.begin()
    path.write_bytes(content)
    words = {"filename": "a.jsonl", "purpose": "fine-tune", "created_by": "me", "facts": {}}
    return files.put(path, **{**words, "now": 1.0, **changes})


def spec_for(file: FileRecord | str, **changes: Any) -> JobSpec:
    """Return a job's spec on an uploaded file."""
    words = {
        "id": f"ftjob-{secrets.token_hex(12)}",
        "name": "poet",
        "base_name": BASE,
        "base_fingerprint": "sha256:" + "f" * 64,
        "task": "causal_lm",
        "training_file": file if isinstance(file, str) else file.id,
        "created_by": "me",
    }
    return JobSpec(**{**words, **changes})


def claim(claims: Claims, worker: str = "one") -> JobRecord:
    """Take the next job in line, which must be there."""
    record = claims.take(BASE, worker, 1, now=3.0)
    assert record is not None
    return record


def run(claims: Claims, worker: str = "one") -> JobRecord:
    """Take the next job in line and say that its files are valid."""
    return claims.validated(fence_of(claim(claims, worker)), now=3.0)


def fence_of(record: JobRecord) -> Fence:
    return Fence(record.id, record.fence)


def files_in(client: Any, folder: Path) -> Files:
    return Files(client, folder / "files")


def publish(
    adapters: Adapters, describe: Any, held: JobRecord, number: int = 1, **named: Any
) -> Any:
    """Publish what a claim made; return the record, and whether it is new."""
    words = {"name": "poet", "created_at": 8, "created_by": held.id, **named}
    return adapters.publish(NewVersion(description=describe(number), fence=fence_of(held), **words))
