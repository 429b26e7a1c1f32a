"""The one way in and the one way out for an adapter: uploads and training jobs both come here.

In:  blob, then record. Out: record, then blob. So a record that can be read has a blob that can be
read, whatever dies in between; what a crash leaves is a blob that no record names (unknown.py).
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

from adapters_core.description import AdapterDescription
from registry.adapters.adapters import Adapters
from registry.adapters.blobs import BlobStore
from registry.adapters.records import Record
from registry.common.fence import Fence
from registry.common.names import check_alias, check_name
from registry.common.notes import check_notes
from registry.errors import RegistryUnavailable


def publish(
    adapters: Adapters,
    blobs: BlobStore,
    description: AdapterDescription,
    file: Path,
    config: bytes,
    name: str,
    *,
    alias: str | None = None,
    created_by: str = "",
    metadata: dict[str, Any] | None = None,
    metrics: dict[str, Any] | None = None,
    now: float,
    fence: Fence | None = None,
    keeps_latest: bool = False,
) -> tuple[Record, bool]:
    """Make a checked adapter a version of `name`; return its record and whether it is new.

    Twice is harmless: the same bytes are the same version. Nothing half made can be seen.

    Args:
        adapters: where the record goes.
        blobs: where the bytes go.
        description: from the check of this file and config.
        file: the coefficient file; it is copied and not changed.
        config: adapter_config.json, as it came.
        name: the adapter's name, new or not.
        alias: moved to this version, if given.
        created_by: an API key's label or a job's id.
        metadata: the publisher's own JSON object.
        metrics: what evaluation measured, a JSON object.
        now: seconds since 1970.
        fence: a training job's claim, checked in the transaction that writes the record.
        keeps_latest: whether `latest` stays where it is, if the name has one.

    Raises:
        FenceLost: the job does not run, or under another claim.
        InvalidArgument: the name, alias, digest, metadata or metrics break a rule.
        RegistryUnavailable: the record may or may not be written; ask again.
        OSError: the store cannot be written.
    """
    check_name(name)
    if alias is not None:
        check_alias(alias)
    check_notes(metadata or {}, metrics or {})
    with blobs.hold(description.digest):
        blobs.put(description.digest, file, config)
        return adapters.publish(
            description,
            name,
            alias=alias,
            created_by=created_by,
            metadata=metadata or {},
            metrics=metrics or {},
            now=now,
            fence=fence,
            keeps_latest=keeps_latest,
        )


def withdraw(
    adapters: Adapters, blobs: BlobStore, name: str, version: int | None = None
) -> list[str]:
    """Delete a version, or the whole name, and the bytes nobody else uses; return those digests.

    Raises:
        AdapterNotFound: no such name or version.
        AdapterInUse: an alias points to this version.
        RegistryUnavailable: the record may or may not be gone; ask again.
    """
    orphans = adapters.delete(name, version)
    for digest in orphans:
        # The adapter is deleted already: what cannot be removed now, `overtone gc` removes later.
        with suppress(RegistryUnavailable, OSError):
            blobs.remove(digest, adapters.digest_is_live)
    return orphans
