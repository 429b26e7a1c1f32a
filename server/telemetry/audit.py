"""The audit log: one line of JSON for every change of state, on the logger `overtone.audit`.

    {"time", "request_id", "key", "tenant", "action", "object", "status", "outcome"}

Ids and names alone: no secret, no prompt, no content of a file, and no text without a bound.
"""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

from adapters_core.starting import CannotStart

_LOG = logging.getLogger("overtone.audit")
_MAX_CHARS = 200


@dataclass(frozen=True)
class AuditLine:
    """One change of state, or an attempt at one.

    Args:
        action: the operation of the API, or the command.
        object: what it is about: ids and names.
        outcome: `done`, `refused`, `failed` (the program's own fault), or `unknown` where the
            caller had gone before there was an answer.
        status: of HTTP; None for a command, or where no answer was sent.
        tenant: of the caller; None for a command, which acts on the registry itself.
        key: the id of the caller's key; None where none was needed.
        request_id: of the request.
        user: of the system, for a command.
    """

    action: str
    object: Mapping[str, Any]
    outcome: str
    status: int | None = None
    tenant: str | None = None
    key: str | None = None
    request_id: str | None = None
    user: str | None = None

    def text(self, now: datetime) -> str:
        """Return the line."""
        told: dict[str, Any] = {
            "time": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "request_id": self.request_id,
            "key": self.key,
            "tenant": self.tenant,
            "action": self.action,
            "object": {name: _short(value) for name, value in self.object.items()},
            "status": self.status,
            "outcome": self.outcome,
        }
        return json.dumps(told if self.user is None else told | {"user": self.user})


def outcome_of(status: int | None) -> str:
    """Return what a status of HTTP says of an attempt."""
    if status is None:
        return "unknown"
    return "done" if status < 400 else "refused" if status < 500 else "failed"


def audit(line: AuditLine) -> None:
    """Write a line; it is in the system's hands when this returns."""
    _LOG.info("%s", line.text(datetime.now(UTC)))


def open_audit_log(path: Path | None) -> logging.Handler | None:
    """Have lines written to a file, which only its owner may read, instead of the program's log.

    A file that is moved away, as logrotate does it, is made again.

    Args:
        path: of the file, which is added to; None: the program's log has the lines.

    Raises:
        CannotStart: it cannot be written.
    """
    _LOG.setLevel(logging.INFO)
    if path is None:
        return None
    try:
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
    except OSError as error:
        what = f"the audit log {path} cannot be written: {error.strerror}"
        raise CannotStart(what, "Give another file with --audit-log") from error
    handler = WatchedFileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(message)s"))
    _LOG.addHandler(handler)
    _LOG.propagate = False
    return handler


def close_audit_log(handler: logging.Handler | None) -> None:
    """Undo `open_audit_log`."""
    if handler is not None:
        _LOG.removeHandler(handler)
        _LOG.propagate = True
        handler.close()


def _short(value: Any) -> Any:
    return value[:_MAX_CHARS] if isinstance(value, str) else value
