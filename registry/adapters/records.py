"""What the registry knows of one version of an adapter, and how that is stored.

Under `keys.records(name)` is one line `DIGEST METHOD`, for the scripts, which never read JSON, and
then JSON for the rest. The name is in the key and the version is the hash's field: the server gives
the number, so the text is never rewritten.
"""

import json
import sys
from dataclasses import dataclass, field, fields
from typing import Any, Self

from adapters_core.format.description import AdapterDescription
from registry.common.fence import Fence
from registry.common.limits import UNLIMITED, Limits
from registry.common.names import (
    DIGEST,
    METHOD,
    check_alias,
    check_digest,
    check_method,
)
from registry.common.notes import check_notes
from registry.common.spaces import check_stored
from registry.errors import CorruptRecord
from registry.redis import keys


@dataclass(frozen=True)
class Record:
    """One immutable version of an adapter.

    Args:
        name: the adapter's name as it is stored.
        version: counts from 1 within the name; never given twice.
        description: of the coefficient file and its config.
        created_at: seconds since 1970.
        created_by: the label of the API key, or the id of the job, that published it.
        metadata: the publisher's own JSON object.
        metrics: what evaluation measured, a JSON object.
    """

    name: str
    version: int
    description: AdapterDescription
    created_at: int
    created_by: str
    metadata: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def digest(self) -> str:
        """`sha256:` and 64 hex digits: the bytes of the coefficient file and its config."""
        return self.description.digest

    @property
    def reference(self) -> str:
        """`NAME@VERSION`, which always means this record while it exists."""
        return f"{self.name}@{self.version}"

    @classmethod
    def read(cls, stored: bytes, name: str, version: int) -> Self:
        """Read what `NewVersion.stored` wrote; fields that a later program added are ignored.

        Raises:
            CorruptRecord: a field is missing or of another type; the message names the key.
        """
        where = f"{keys.records(name)} field {version}"
        head, _, body = stored.partition(b"\n")
        try:
            digest, method = head.decode().split(" ")
            facts = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise CorruptRecord(f"{where} is not a head line and JSON") from error
        if not (isinstance(facts, dict) and DIGEST.fullmatch(digest) and METHOD.fullmatch(method)):
            raise CorruptRecord(f"{where} is not a digest, a method and a JSON object")
        values: dict[str, Any] = {field: _fact(facts, field, where) for field in _TYPES}
        values["target_modules"] = tuple(sys.intern(path) for path in values["target_modules"])
        described = {field: values.pop(field) for field in _DESCRIBED}
        description = AdapterDescription(digest=digest, method=method, **described)
        return cls(name, version, description, **values)


@dataclass(frozen=True, kw_only=True)
class NewVersion:
    """What shall become a version of a name; checked when it is made.

    Args:
        name: the adapter's name as it is stored, new or not.
        description: from the check of the coefficient file and its config.
        created_at: seconds since 1970.
        created_by: the label of an API key, or the id of a job.
        metadata: the publisher's own JSON object.
        metrics: what evaluation measured, a JSON object.
        alias: moved to this version, if given.
        keeps_latest: whether `latest` stays where it is, if the name has one.
        fence: a training job's claim, checked in the transaction that writes the record.
        limits: of what the tenant may have, checked there, too.

    Raises:
        InvalidName: the name, the alias, the digest or the method breaks its rule.
        InvalidArgument: metadata or metrics are not JSON, too deep or too large together.
    """

    name: str
    description: AdapterDescription
    created_at: int
    created_by: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    alias: str | None = None
    keeps_latest: bool = False
    fence: Fence | None = None
    limits: Limits = UNLIMITED

    def __post_init__(self) -> None:
        check_stored(self.name)
        if self.alias is not None:
            check_alias(self.alias)
        check_digest(self.description.digest)
        check_method(self.description.method)
        check_notes(self.metadata, self.metrics)

    @property
    def stored(self) -> str:
        """The record as it is stored: all but its name and version, which are kept beside it."""
        described = {field: getattr(self.description, field) for field in _DESCRIBED}
        own = {field: getattr(self, field) for field in _TYPES if field not in _DESCRIBED}
        body = json.dumps({**described, **own}, separators=(",", ":"))
        return f"{self.description.digest} {self.description.method}\n{body}"


_TYPES: dict[str, type] = {
    "method_config": dict,
    "base_name": str,
    "base_fingerprint": str,
    "base_verified": bool,
    "target_modules": list,
    "num_coefficients": int,
    "size_bytes": int,
    "created_at": int,
    "created_by": str,
    "metadata": dict,
    "metrics": dict,
}

#: The fields of the description that are in the JSON; the head line has the others.
_DESCRIBED = tuple(each.name for each in fields(AdapterDescription) if each.name in _TYPES)


def _fact(facts: dict[str, Any], field: str, where: str) -> Any:
    """Return one field's value, of exactly the declared type: a bool is no int here."""
    value = facts.get(field)
    if type(value) is not _TYPES[field]:
        raise CorruptRecord(f"{where}: {field!r} is not of type {_TYPES[field].__name__}")
    if field == "target_modules" and not all(type(path) is str for path in facts[field]):
        raise CorruptRecord(f"{where}: 'target_modules' does not hold text only")
    return value
