"""An adapter's identity: a digest over its coefficient file and its config."""

import hashlib
from pathlib import Path


def digest_of(path: Path, canonical_config: bytes) -> str:
    """Return `sha256:…`, the identity of a coefficient file together with its config."""
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").digest()
    both = b"overtone adapter\0" + content + hashlib.sha256(canonical_config).digest()
    return "sha256:" + hashlib.sha256(both).hexdigest()
