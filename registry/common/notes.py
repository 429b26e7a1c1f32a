"""The limits of a version's metadata and metrics, the publisher's own JSON objects."""

import json
from typing import Any

from adapters_core.strict_json import nests_deeper
from registry.errors import InvalidArgument

MAX_NOTES_BYTES = 64 * 1024  # metadata and metrics together, as JSON
MAX_NOTES_DEPTH = 16


def check_notes(metadata: dict[str, Any], metrics: dict[str, Any]) -> None:
    """Check the publisher's own values.

    Raises:
        InvalidArgument: they cannot be stored: not JSON, too large or too deep.
    """
    notes = {"metadata": metadata, "metrics": metrics}
    if nests_deeper(notes, MAX_NOTES_DEPTH):  # first: what follows is recursive
        raise InvalidArgument(f"metadata and metrics nest deeper than {MAX_NOTES_DEPTH} levels")
    try:
        size_bytes = len(json.dumps(notes, allow_nan=False, ensure_ascii=False).encode())
    except (TypeError, ValueError) as error:
        raise InvalidArgument(
            "metadata and metrics must be JSON objects of finite numbers, text, lists and objects"
        ) from error
    if size_bytes > MAX_NOTES_BYTES:
        raise InvalidArgument(
            f"metadata and metrics are {size_bytes} bytes as JSON; the limit is {MAX_NOTES_BYTES}"
        )
