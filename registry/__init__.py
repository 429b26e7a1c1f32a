"""What processes share: adapters' names and versions in Redis, and their bytes in a store."""

from registry.adapters import AdapterEntry, Adapters
from registry.address import EMBEDDED, has_password, masked, password_in, with_password
from registry.blobs import BlobPaths, BlobStore
from registry.changes import Change, follow
from registry.claims import Claims
from registry.connect import Registry, connect
from registry.directory import Directory, Following
from registry.embedded import EmbeddedServer
from registry.errors import (
    AdapterInUse,
    AdapterNotFound,
    BlobMissing,
    CorruptRecord,
    FenceLost,
    FileNotFound,
    ForeignStore,
    InvalidArgument,
    InvalidName,
    JobConflict,
    JobNotFound,
    NameConflict,
    PreconditionFailed,
    RegistryError,
    RegistryFull,
    RegistryUnavailable,
    RegistryUnusable,
)
from registry.fence import Fence
from registry.files import FileRecord, Files
from registry.job_folders import JobFolders
from registry.job_log import Checkpoint, Event, MetricPoint
from registry.job_record import JobError, JobRecord, JobResult, Progress, State
from registry.job_spec import Hyperparameters, JobSpec, PublishGate
from registry.jobs import Jobs
from registry.names import Reference, check_alias, check_digest, check_name
from registry.publish import publish, withdraw
from registry.records import Record
from registry.scripts import Observer

__all__ = [
    "EMBEDDED",
    "AdapterEntry",
    "AdapterInUse",
    "AdapterNotFound",
    "Adapters",
    "BlobMissing",
    "BlobPaths",
    "BlobStore",
    "Change",
    "Checkpoint",
    "Claims",
    "CorruptRecord",
    "Directory",
    "EmbeddedServer",
    "Event",
    "Fence",
    "FenceLost",
    "FileNotFound",
    "FileRecord",
    "Files",
    "Following",
    "ForeignStore",
    "Hyperparameters",
    "InvalidArgument",
    "InvalidName",
    "JobConflict",
    "JobError",
    "JobFolders",
    "JobNotFound",
    "JobRecord",
    "JobResult",
    "JobSpec",
    "Jobs",
    "MetricPoint",
    "NameConflict",
    "Observer",
    "PreconditionFailed",
    "Progress",
    "PublishGate",
    "Record",
    "Reference",
    "Registry",
    "RegistryError",
    "RegistryFull",
    "RegistryUnavailable",
    "RegistryUnusable",
    "State",
    "check_alias",
    "check_digest",
    "check_name",
    "connect",
    "follow",
    "has_password",
    "masked",
    "password_in",
    "publish",
    "with_password",
    "withdraw",
]
