"""The metadata entry of our own files: put into a file that PEFT wrote, or taken out of ours.

Tensors keep their bytes, dtypes and names, and the config is not touched, so both ways are exact
for every method. Only the header is written anew.
"""

import json
from collections.abc import Mapping
from typing import Any

from adapters_core.base.spec import BaseSpec
from adapters_core.format.header_parts import METADATA_KEY
from adapters_core.format.read import Adapter


def stamped(file: bytes, adapter: Adapter, base: BaseSpec) -> bytes:
    """Return the file with the base's fingerprint and the method's own entries in its header.

    Args:
        file: a safetensors file that `read_adapter` took.
        adapter: what it read.
        base: against which.
    """
    kind = type(next(iter(adapter.methods.values())))
    own = {"base": {"name": base.name, "fingerprint": base.fingerprint}}
    own |= kind.metadata_of(adapter.methods, base.layers)
    return _with_metadata(file, {METADATA_KEY: json.dumps(own)})


def unstamped(file: bytes) -> bytes:
    """Return the file without our entry; one that has none comes back with the same tensors."""
    return _with_metadata(file, {METADATA_KEY: None})


def _with_metadata(file: bytes, changes: Mapping[str, str | None]) -> bytes:
    """Return the file with metadata entries set or, where None, removed; keys sorted."""
    start = 8 + int.from_bytes(file[:8], "little")
    header: dict[str, Any] = json.loads(file[8:start])
    # transformers and PEFT ask for the format, and refuse a file without any metadata.
    metadata = {"format": "pt"} | header.pop("__metadata__", {}) | changes
    kept = {key: value for key, value in sorted(metadata.items()) if value is not None}
    raw = json.dumps({"__metadata__": kept} | header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)  # the data part stays aligned
    return len(raw).to_bytes(8, "little") + raw + file[start:]
