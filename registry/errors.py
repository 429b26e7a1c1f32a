"""What can go wrong between an adapter's name and its bytes.

RegistryError                the root: catch this to catch all of them
├── AdapterNotFound          no such name, version, alias or digest
│   └── BlobMissing          the record is there, its file is not
├── NameConflict             the name's present state does not allow this
├── NotOwner                 the adapter is another tenant's, which may be used and not changed
├── AdapterInUse             an alias still points to the version to be deleted
├── JobNotFound              no such training job
├── FileNotFound             no such uploaded file
├── BatchNotFound            no such batch of requests
├── KeyNotFound              no such API key
├── KeyConflict              the API key's present state does not allow this
├── JobConflict              the job's, batch's or file's present state does not allow this
│   └── FenceLost            another attempt holds the job now
├── QuotaExceeded            the tenant has as much as it may
├── PreconditionFailed       the alias was moved by another caller first
├── InvalidArgument          a value breaks a rule, before anything was asked or written
│   └── InvalidName          a name, alias, version or digest breaks its rule
├── ForeignStore             store and registry do not belong together; said to operators
├── BlobDamaged              the bytes of a digest are not those that it was made from
├── BackupUnusable           a backup cannot be made, read or put back; said to operators
├── SchemaTooNew             the registry was written by a later program; said to operators
├── CorruptRecord            a stored value is not what this program writes
└── RegistryUnavailable      the registry's server does not answer, or refuses to
    ├── StoreUnavailable     the bucket with adapters' bytes does not answer, or refuses
    ├── RegistryFull         its disk or its memory has no room: reads go on
    └── RegistryUnusable     as it is set it will not answer; said to operators

Messages reach callers of the REST API: they name the value, the limit and the next step, never an
address or a path.
"""

from typing import ClassVar


class RegistryError(Exception):
    """Any fault of the registry."""

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class AdapterNotFound(RegistryError):
    """The reference names nothing: not now, or not ever, by the rules of names."""

    code = "model_not_found"


class BlobMissing(AdapterNotFound):
    """The store has no file for a digest: it was deleted just now, or the store is another one."""


class NameConflict(RegistryError):
    """The name is in a state that does not allow this, such as a rollback of its first version."""

    code = "name_conflict"


class NotOwner(RegistryError):
    """The adapter is shared by another tenant: it may be used, and only its owner changes it."""

    code = "not_owner"


class AdapterInUse(RegistryError):
    """The version cannot be deleted while an alias points to it; the message lists the aliases."""

    code = "adapter_in_use"


class JobNotFound(RegistryError):
    """No training job has this id, or none that the caller may see."""

    code = "not_found"


class FileNotFound(RegistryError):
    """No uploaded file has this id, or none that the caller may see."""

    code = "not_found"


class BatchNotFound(RegistryError):
    """No batch has this id, or none that the caller may see."""

    code = "not_found"


class KeyNotFound(RegistryError):
    """No API key has this id."""

    code = "not_found"


class KeyConflict(RegistryError):
    """The API key is revoked or expired, so it cannot be rotated; or no more keys can be made."""

    code = "invalid_request"


class JobConflict(RegistryError):
    """The job or batch is in a state that does not allow this; or one still needs the file."""

    code = "invalid_request"


class FenceLost(JobConflict):
    """The caller's claim of the job is over: it was taken back, paused or cancelled."""


class QuotaExceeded(RegistryError):
    """The tenant has as much as its limit allows; the message says how much, and of what."""

    code = "quota_exceeded"


class PreconditionFailed(RegistryError):
    """The alias is not where the caller last saw it; the message says where it is."""

    code = "precondition_failed"


class InvalidArgument(RegistryError):
    """A limit, metadata or metrics value that cannot be stored or asked for."""

    code = "invalid_request"


class InvalidName(InvalidArgument):
    """A name, alias, version or digest that breaks the rule given in the message."""


class ForeignStore(RegistryError):
    """The store belongs to another registry, or the registry to another store; nothing was changed.

    Its message is for operators: it names the folder and the commands.
    """


class BlobDamaged(RegistryError):
    """The stored bytes of a digest are not those that it was made from; they are not used."""


class BackupUnusable(RegistryError):
    """A backup cannot be made, read or put back; the message says why, for operators."""


class SchemaTooNew(RegistryError):
    """The registry was written by a later program; nothing was changed. For operators."""


class CorruptRecord(RegistryError):
    """A value under the named key was damaged or written by something else."""


class RegistryUnavailable(RegistryError):
    """No answer in time, a refused connection, or a server that cannot write just now."""

    code = "registry_unavailable"
    #: Whether asking again may help.
    may_pass = True


class StoreUnavailable(RegistryUnavailable):
    """The bucket with the adapters' bytes does not answer, or refuses; the log has its words."""


class RegistryFull(RegistryUnavailable):
    """The registry answers and takes no writes: its disk or its memory is full."""

    code = "storage_full"


class RegistryUnusable(RegistryUnavailable):
    """The registry cannot be used as it is set; the message gives its address and the reason.

    Args:
        message: for operators.
        may_pass: asking again may help.
    """

    def __init__(self, message: str, may_pass: bool = True) -> None:
        super().__init__(message)
        self.may_pass = may_pass
