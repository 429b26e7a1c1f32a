"""The one way in and the one way out for an adapter: uploads and training jobs both come here.

In:  blob, then record. Out: record, then blob. So a record that can be read has a blob that can be
read, whatever dies in between; what a crash leaves is a blob that no record names (unknown.py).
"""

from contextlib import suppress
from pathlib import Path

from registry.adapters.adapters import Adapters
from registry.adapters.bucket_blobs import Blobs
from registry.adapters.records import NewVersion, Record
from registry.errors import RegistryUnavailable


def publish(
    adapters: Adapters, blobs: Blobs, new: NewVersion, file: Path, config: bytes
) -> tuple[Record, bool]:
    """Make a checked adapter a version of a name; return its record and whether it is new.

    Twice is harmless: the same bytes are the same version. Nothing half made can be seen.

    Args:
        adapters: where the record goes.
        blobs: where the bytes go.
        new: the version; its description is from the check of this file and config.
        file: the coefficient file; it is copied and not changed.
        config: adapter_config.json, as it came.

    Raises:
        FenceLost: the job does not run, or under another claim.
        RegistryUnavailable: the record may or may not be written; ask again.
        OSError: the store cannot be written.
    """
    with blobs.hold(new.description.digest):
        blobs.put(new.description.digest, file, config)
        return adapters.publish(new)


def withdraw(adapters: Adapters, blobs: Blobs, name: str, version: int | None = None) -> list[str]:
    """Delete a version or the whole name, and the bytes that no other record names.

    Returns the digests of these bytes.

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
