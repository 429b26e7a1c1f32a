"""What dead workers, killed processes and corrupt records leave behind is cleaned up."""

import threading
from pathlib import Path

import pytest

from job_attempts import claimed, file_job
from registry.common.fence import Fence
from registry.connect import Registry
from registry.errors import RegistryUnavailable
from registry.jobs.log import checkpoint_entry
from registry.jobs.record import JobError, JobRecord
from registry.redis import keys
from trainer.process.job_cleanup import remove_finished_folders
from trainer.process.retry import Interrupted, until_available
from trainer.process.settings import WorkerSettings
from trainer.worker.stale_claims import StaleClaims
from trainer.worker.worker import Worker
from waiting import until


def test_retries_end_when_interrupted() -> None:
    waits: list[float] = []

    def ask() -> None:
        raise RegistryUnavailable("down")

    def interrupted(wait_s: float) -> bool:
        waits.append(wait_s)
        return len(waits) == 10

    with pytest.raises(Interrupted):
        until_available(ask, interrupted)
    assert waits == sorted(waits)
    assert waits[-1] == 2.0


def test_only_claims_without_heartbeats_are_taken_back(registry: Registry) -> None:
    quiet, lively = (claimed(registry, file_job(registry)) for _ in range(2))
    stale = StaleClaims(registry.claims, "tiny", lost_after_s=30.0)
    found = []
    for at in range(0, 41, 5):
        registry.claims.beat(lively)
        found += [(at, id_) for id_ in stale.take_back(float(at), 10.0)]

    assert found == [(30, quiet.job)]
    assert registry.jobs.get(quiet.job).state == "queued"
    assert registry.jobs.get(lively.job).is_held


def test_a_worker_that_was_suspended_takes_nothing_back(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    fence = claimed(registry, file_job(registry))
    stale = StaleClaims(registry.claims, "tiny", lost_after_s=30.0)
    assert stale.take_back(0.0, 10.0) == []
    assert stale.take_back(1000.0, 10.0) == []  # asleep meanwhile

    def down(base_name: str) -> list[JobRecord]:
        raise RegistryUnavailable("down")

    with monkeypatch.context() as patched:
        patched.setattr(registry.claims, "held", down)
        for at in (1010.0, 1020.0, 1029.0):
            with pytest.raises(RegistryUnavailable):
                stale.take_back(at, 10.0)
    assert stale.take_back(1035.0, 10.0) == []
    assert registry.jobs.get(fence.job).is_held


def test_folders_that_killed_processes_left_are_removed(registry: Registry) -> None:
    over, living, paused = (file_job(registry) for _ in range(3))
    for spec in (over, living, paused):
        registry.job_folders.take(claimed(registry, spec))
    registry.jobs.cancel(over.id, now=3.0)
    registry.jobs.pause(paused.id, now=3.0)

    remove_finished_folders(registry)

    assert sorted(registry.job_folders.jobs()) == sorted([living.id, paused.id])


def test_the_folder_of_a_job_that_the_registry_does_not_know_stays(registry: Registry) -> None:
    fence = Fence("ftjob-" + "0" * 24, 1)
    checkpoint = registry.job_folders.take(fence) / "checkpoint"
    checkpoint.write_bytes(b"hours of work")

    remove_finished_folders(registry)

    assert checkpoint.exists()
    registry.job_folders.remove(fence.job)


@pytest.mark.parametrize("has_checkpoint", [True, False])
def test_the_folder_of_a_failed_job_stays_if_it_holds_a_checkpoint(
    registry: Registry, has_checkpoint: bool
) -> None:
    spec = file_job(registry)
    fence = claimed(registry, spec)
    registry.job_folders.take(fence)
    entries = [checkpoint_entry(3, "step-00000003", 2.0)] if has_checkpoint else []
    registry.claims.report(fence, 1, entries)
    registry.claims.fail(fence, JobError("storage_full", "the disk is full"), now=3.0)

    remove_finished_folders(registry)

    assert (spec.id in registry.job_folders.jobs()) == has_checkpoint
    registry.job_folders.remove(spec.id)


def test_one_corrupt_record_does_not_end_a_worker(
    registry: Registry, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    id_ = "ftjob-" + "0" * 24
    registry.client.hset(keys.job(id_), "state", "running")
    registry.client.zadd(keys.JOBS_IN_STATE + "running", {id_: 1.0})
    worker = Worker(WorkerSettings(base="base", base_name="tiny", data=tmp_path), registry)
    running = threading.Thread(target=worker.run)
    running.start()
    until(lambda: "a record that cannot be read" in caplog.text)
    assert running.is_alive()
    worker.stop()
    running.join(20)

    assert not running.is_alive()
