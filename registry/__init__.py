"""What processes share: adapters' names and versions in Redis, and their bytes in a store."""

from registry.adapters import AdapterEntry, Adapters
from registry.blobs import BlobPaths, BlobStore
from registry.changes import Change, follow
from registry.connect import Registry, connect
from registry.directory import Directory, Following
from registry.embedded import EmbeddedServer
from registry.errors import (
    AdapterInUse,
    AdapterNotFound,
    BlobMissing,
    CorruptRecord,
    InvalidArgument,
    InvalidName,
    NameConflict,
    PreconditionFailed,
    RegistryError,
    RegistryUnavailable,
)
from registry.names import Reference, check_alias, check_digest, check_name
from registry.publish import publish, withdraw
from registry.records import Record
from registry.scripts import Observer

__all__ = [
    "AdapterEntry",
    "AdapterInUse",
    "AdapterNotFound",
    "Adapters",
    "BlobMissing",
    "BlobPaths",
    "BlobStore",
    "Change",
    "CorruptRecord",
    "Directory",
    "EmbeddedServer",
    "Following",
    "InvalidArgument",
    "InvalidName",
    "NameConflict",
    "Observer",
    "PreconditionFailed",
    "Record",
    "Reference",
    "Registry",
    "RegistryError",
    "RegistryUnavailable",
    "check_alias",
    "check_digest",
    "check_name",
    "connect",
    "follow",
    "publish",
    "withdraw",
]
