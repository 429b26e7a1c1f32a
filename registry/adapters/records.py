"""What the registry knows of one version of an adapter, and how that is stored.

Under `keys.records(name)` is one line `DIGEST METHOD`, for the scripts, which never read JSON, and
then JSON for the rest. The name is in the key and the version is the hash's field: the server gives
the number, so the text is never rewritten.
"""

import json
import sys
from dataclasses import dataclass
from typing import Any, Self

from adapters_core.description import AdapterDescription
from registry.common.names import DIGEST, METHOD, check_digest, check_method
from registry.common.notes import check_notes
from registry.errors import CorruptRecord
from registry.redis import keys


@dataclass(frozen=True)
class Record:
    """One immutable version of an adapter.

    Args:
        name: the adapter's name.
        version: counts from 1 within the name; never given twice.
        digest: `sha256:` and 64 hex digits: the bytes of the coefficient file and its config.
        method, method_config, base_name, base_fingerprint, base_verified, target_modules,
            num_coefficients, size_bytes: as in `AdapterDescription`.
        created_at: seconds since 1970.
        created_by: who published it: an API key's label or a job's id.
        metadata: the publisher's own JSON object.
        metrics: what evaluation measured, a JSON object.
    """

    name: str
    version: int
    digest: str
    method: str
    method_config: dict[str, Any]
    base_name: str
    base_fingerprint: str
    base_verified: bool
    target_modules: tuple[str, ...]
    num_coefficients: int
    size_bytes: int
    created_at: int
    created_by: str
    metadata: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def reference(self) -> str:
        """`NAME@VERSION`, which always means this record while it exists."""
        return f"{self.name}@{self.version}"

    @classmethod
    def read(cls, stored: bytes, name: str, version: int) -> Self:
        """Read what `stored_form` wrote; fields that a later program added are left aside.

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
        return cls(name=name, version=version, digest=digest, method=method, **values)


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


def _fact(facts: dict[str, Any], field: str, where: str) -> Any:
    """Return one field's value, of exactly the declared type: a bool is no int here."""
    value = facts.get(field)
    if type(value) is not _TYPES[field]:
        raise CorruptRecord(f"{where}: {field!r} is not of type {_TYPES[field].__name__}")
    if field == "target_modules" and not all(type(path) is str for path in facts[field]):
        raise CorruptRecord(f"{where}: 'target_modules' does not hold text only")
    return value


def stored_form(
    description: AdapterDescription,
    *,
    created_at: int,
    created_by: str,
    metadata: dict[str, Any],
    metrics: dict[str, Any],
) -> str:
    """Return a record as it is stored: all but its name and version, which are kept beside it.

    Raises:
        InvalidArgument: metadata or metrics are not JSON, too deep or too large together.
        InvalidName: the description's digest or method breaks its rule.
    """
    check_digest(description.digest)
    check_method(description.method)
    check_notes(metadata, metrics)
    own = {
        "created_at": created_at,
        "created_by": created_by,
        "metadata": metadata,
        "metrics": metrics,
    }
    facts = {field: getattr(description, field) for field in _TYPES if field not in own}
    body = json.dumps({**facts, **own}, separators=(",", ":"))
    return f"{description.digest} {description.method}\n{body}"
