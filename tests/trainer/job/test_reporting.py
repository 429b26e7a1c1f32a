"""A job's reports are stored once and in time, whatever the registry does meanwhile."""

import threading
from pathlib import Path
from typing import Any

import pytest

from job_attempts import STEPS, attempt, claimed, file_job, texts
from registry.connect import Registry
from registry.errors import RegistryUnavailable
from registry.jobs import log as job_log
from trainer.job.reporting import Reporting


def test_a_job_trains_on_while_the_registry_is_down_and_reports_later(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refused = registry.claims.report, []

    def report(*args: Any) -> Any:
        if len(refused) < 3:
            refused.append(args)
            raise RegistryUnavailable("down")
        return real(*args)

    monkeypatch.setattr(registry.claims, "report", report)
    spec = file_job(registry)

    assert attempt(registry, claimed(registry, spec)).state == "succeeded"

    assert len(refused) == 3
    points = registry.jobs.metrics(spec.id, 100)
    assert [point.step for point in points] == list(range(STEPS + 1))


def test_metrics_that_a_killed_process_had_not_sent_are_sent_by_the_next(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = file_job(registry)
    first = Reporting(registry.claims, claimed(registry, spec), threading.Event())  # never sends
    first.keep_in(tmp_path)
    first.metrics(1, {"train_loss": 1.0})
    first.metrics(2, {"train_loss": 2.0})
    with (tmp_path / "news.jsonl").open("a") as file:
        file.write('\n[3, {"train_l')
    registry.claims.take_back(registry.jobs.get(spec.id), now=3.0)

    with Reporting(registry.claims, claimed(registry, spec), threading.Event()) as second:
        second.keep_in(tmp_path)
        second.metrics(2, {"train_loss": 2.0})
        second.metrics(3, {"train_loss": 3.0})

    points = [(p.step, p.values) for p in registry.jobs.metrics(spec.id, 100)]
    assert points == [(step, {"train_loss": float(step)}) for step in (1, 2, 3)]


def test_that_a_job_runs_may_be_heard_after_what_it_made(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = threading.Event()
    real_publish, real_validated = registry.adapters.publish, registry.claims.validated

    def publish(*args: Any, **named: Any) -> Any:
        made = real_publish(*args, **named)
        published.set()
        return made

    def validated(*args: Any, **named: Any) -> Any:
        if not published.is_set():
            raise RegistryUnavailable("down")
        return real_validated(*args, **named)

    monkeypatch.setattr(registry.adapters, "publish", publish)
    monkeypatch.setattr(registry.claims, "validated", validated)
    spec = file_job(registry)
    assert attempt(registry, claimed(registry, spec)).state == "succeeded"
    moves = [event.data["to"] for event in registry.jobs.events(spec.id, 100) if "to" in event.data]
    assert moves == ["queued", "validating_files", "running", "succeeded"]


def test_a_report_whose_answer_was_lost_is_not_taken_twice(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, lost = registry.claims.report, []

    def report(*args: Any) -> Any:
        answer = real(*args)
        if args[2] and len(lost) < 3:
            lost.append(args)
            raise RegistryUnavailable("the answer was lost")
        return answer

    monkeypatch.setattr(registry.claims, "report", report)
    spec = file_job(registry)
    fence = claimed(registry, spec)
    with Reporting(registry.claims, fence, threading.Event()) as news:
        for number in range(5):
            news.event("info", f"line {number}")

    lines = texts(registry, spec.id)
    assert lost
    assert [lines.count(f"line {number}") for number in range(5)] == [1] * 5


def test_a_checkpoint_does_not_wait_behind_what_earlier_attempts_measured(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A process that dies meanwhile would seem to have got nowhere, and that is forgiven twice."""
    spec = file_job(registry)
    first = Reporting(registry.claims, claimed(registry, spec), threading.Event())  # never sends
    first.keep_in(tmp_path)
    for step in range(1, 1201):
        first.metrics(step, {"train_loss": 1.0})
    registry.claims.take_back(registry.jobs.get(spec.id), now=3.0)
    assert registry.jobs.get(spec.id).failures == 1

    real, heard = registry.claims.report, list[tuple[int, int]]()

    def report(*args: Any) -> Any:
        answer = real(*args)
        found = registry.jobs.get(spec.id)
        heard.append((found.failures, found.progress.step))
        return answer

    monkeypatch.setattr(registry.claims, "report", report)
    second = Reporting(registry.claims, claimed(registry, spec), threading.Event())
    second.keep_in(tmp_path)
    second.progress(1201, 2000, None)
    second.checkpoint(1201, "step-1201")
    with second:
        pass
    assert heard[0] == (0, 1201)
    assert len(heard) > 2


def test_a_message_is_cut_so_that_any_reply_can_carry_it() -> None:
    assert job_log.shown("x" * 5000)[-1] == "…"
    assert job_log.shown("\udcff") == "\\udcff"
