"""What processes share: records of adapters, files, jobs and batches in Redis, bytes in a store."""

from registry.access.api_keys import ApiKeys
from registry.access.mirror import KeyMirror
from registry.access.record import KeyRecord, NewKey, Scope
from registry.adapters.adapters import AdapterEntry, Adapters
from registry.adapters.blobs import BlobPaths, BlobStore
from registry.adapters.changes import Change, follow
from registry.adapters.directory import Directory, Following
from registry.adapters.publish import publish, withdraw
from registry.adapters.records import NewVersion, Record
from registry.adapters.sharing import Sharing
from registry.adapters.view import AdapterView
from registry.batches.batches import Batches
from registry.batches.claims import BatchClaims
from registry.batches.record import BatchRecord, BatchSpec, RequestCounts
from registry.batches.segments import Answered, BatchFolders
from registry.common.fence import Fence
from registry.common.names import RESERVED, Reference, check_alias, check_digest, check_name
from registry.connect import Registry, connect
from registry.errors import (
    AdapterInUse,
    AdapterNotFound,
    BatchNotFound,
    BlobDamaged,
    BlobMissing,
    CorruptRecord,
    FenceLost,
    FileNotFound,
    ForeignStore,
    InvalidArgument,
    InvalidName,
    JobConflict,
    JobNotFound,
    KeyConflict,
    KeyNotFound,
    NameConflict,
    NotOwner,
    PreconditionFailed,
    QuotaExceeded,
    RegistryError,
    RegistryFull,
    RegistryUnavailable,
    RegistryUnusable,
)
from registry.files import FileRecord, Files
from registry.jobs.claims import Claims
from registry.jobs.folders import JobFolders
from registry.jobs.jobs import Jobs
from registry.jobs.log import Checkpoint, Event, MetricPoint
from registry.jobs.record import JobError, JobRecord, JobResult, Progress, State
from registry.jobs.spec import Hyperparameters, JobSpec, PublishGate
from registry.redis.address import EMBEDDED, has_password, masked, password_in, with_password
from registry.redis.embedded import EmbeddedServer
from registry.redis.scripts import Observer

__all__ = [
    "EMBEDDED",
    "RESERVED",
    "AdapterEntry",
    "AdapterInUse",
    "AdapterNotFound",
    "AdapterView",
    "Adapters",
    "Answered",
    "ApiKeys",
    "BatchClaims",
    "BatchFolders",
    "BatchNotFound",
    "BatchRecord",
    "BatchSpec",
    "Batches",
    "BlobDamaged",
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
    "KeyConflict",
    "KeyMirror",
    "KeyNotFound",
    "KeyRecord",
    "MetricPoint",
    "NameConflict",
    "NewKey",
    "NewVersion",
    "NotOwner",
    "Observer",
    "PreconditionFailed",
    "Progress",
    "PublishGate",
    "QuotaExceeded",
    "Record",
    "Reference",
    "Registry",
    "RegistryError",
    "RegistryFull",
    "RegistryUnavailable",
    "RegistryUnusable",
    "RequestCounts",
    "Scope",
    "Sharing",
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
