"""What the server's process writes to its log, and how: as text, or as JSON for collectors."""

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

from server.telemetry.traces import current

LogFormat = Literal["text", "json"]

#: That of the request which is being answered; in its threads, too. Empty outside of requests.
request_id: ContextVar[str] = ContextVar("overtone_request_id", default="")

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def configure_logging(form: LogFormat = "text") -> None:
    """Write what is worth knowing to standard error; safe to call twice."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for noisy in ("httpx2", "httpcore2", "uvicorn.error"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class JsonLines(logging.Formatter):
    """Writes an object a line: time, level, logger, message, and what it knows of the request.

    `extra={"fields": {...}}` of a message adds fields. A traceback is in `exception`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_of_request(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str)


def _of_request() -> dict[str, str]:
    told = {"request_id": request_id.get()} if request_id.get() else {}
    trace = current.get()
    return told if trace is None else {**told, "trace_id": trace.id}
