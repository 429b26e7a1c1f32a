"""The audit log's file: whole lines of JSON, for its owner alone, made again when it is moved."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters_core.starting import CannotStart
from server.telemetry.audit import AuditLine, audit, close_audit_log, open_audit_log, outcome_of

LINE = AuditLine("deleteFile", {"file_id": "file-1"}, "done", 200, "alice", "k1", "r1")


@contextmanager
def opened(path: Path | None) -> Iterator[None]:
    handler = open_audit_log(path)
    try:
        yield
    finally:
        close_audit_log(handler)


def test_a_line_is_an_object_of_bounded_text() -> None:
    line = AuditLine("a", {"name": "x" * 1000, "version": 3, "odd": 'a"\n\u2028'}, "done")
    text = line.text(datetime(2026, 11, 29, 20, 41, 7, 310_999, UTC))
    assert "\n" not in text
    assert text.isascii()
    told = json.loads(text)
    assert told["time"] == "2026-11-29T20:41:07.310Z"
    assert told["object"] == {"name": "x" * 200, "version": 3, "odd": 'a"\n\u2028'}
    assert "user" not in told
    assert json.loads(AuditLine("a", {}, "done", user="op").text(datetime.now(UTC)))["user"] == "op"


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, "done"), (202, "done"), (403, "refused"), (409, "refused"), (507, "failed")]
    + [(500, "failed"), (None, "unknown")],
)
def test_an_outcome_follows_the_status(status: int | None, outcome: str) -> None:
    assert outcome_of(status) == outcome


def test_a_file_gets_all_lines_and_the_log_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text('{"before": 1}\n')
    with opened(path):
        audit(LINE)
        path.rename(tmp_path / "audit.1")  # as logrotate does it
        audit(LINE)
    assert not [each for each in caplog.records if each.name == "overtone.audit"]
    old, new = ((tmp_path / name).read_text().splitlines() for name in ("audit.1", "audit.jsonl"))
    assert len(old) == 2
    assert len(new) == 1
    assert json.loads(new[0])["action"] == json.loads(old[1])["action"] == "deleteFile"


def test_a_new_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    with opened(tmp_path / "audit.jsonl"):
        assert (tmp_path / "audit.jsonl").stat().st_mode & 0o777 == 0o600


def test_without_a_file_lines_are_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with opened(None):
        audit(LINE)
    assert json.loads(caplog.records[-1].getMessage())["key"] == "k1"


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="audit log .* cannot be written.*--audit-log"):
        open_audit_log(tmp_path / "none" / "audit.jsonl")
