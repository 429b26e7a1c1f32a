"""One attempt at a job, in this process: whatever happens in it, the record is right."""

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from job_attempts import STEPS, attempt, claimed, digest_of, file_job, texts
from jobs_made import spec_for
from registry.common.fence import Fence
from registry.connect import Registry
from registry.errors import AdapterNotFound, RegistryUnavailable
from registry.jobs.spec import PublishGate
from trainer.interfaces import Trained, Wanted
from trainer.job.attempt import fault_of
from trainer.job.publishing import metadata_of
from trainer.job.reporting import Reporting
from waiting import until


@pytest.fixture
def digest(registry: Registry) -> str:
    """The digest of an undisturbed run."""
    spec = file_job(registry, name="undisturbed")
    attempt(registry, claimed(registry, spec))
    return digest_of(registry, "undisturbed")


def test_an_undisturbed_job_publishes_what_it_made(registry: Registry) -> None:
    spec = file_job(registry, metadata={"mine": 1}, alias="prod")

    end = attempt(registry, claimed(registry, spec))

    record = registry.adapters.resolve("poet@prod")
    assert end.state == "succeeded"
    assert end.result is not None
    assert (end.result.reference, end.result.digest) == ("poet@1", record.digest)
    assert end.result.metrics == record.metrics
    assert record.metrics["eval_loss"] == 1.0
    assert record.metrics["base"]["eval_loss"] == 2.0
    assert record.created_by == spec.id
    assert record.metadata["mine"] == 1
    made = record.metadata["training"]
    assert (made["steps"], made["method"], made["spec"]["seed"]) == (STEPS, "fourierft", 0)
    assert (end.progress.step, end.trained_tokens) == (STEPS, 100 * STEPS)
    assert [point.step for point in registry.jobs.metrics(spec.id, 100)] == list(range(STEPS + 1))
    assert [point.step for point in registry.jobs.checkpoints(spec.id)] == [5, 10]
    assert "Published as poet@1" in texts(registry, spec.id)


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"content": b"broken"}, "invalid_training_file", "line 2"),
        ({"base_fingerprint": "sha256:other"}, "base_mismatch", "sha256:other"),
    ],
)
def test_a_fault_of_the_job_fails_it_at_once(
    registry: Registry, changes: dict[str, Any], code: str, says: str
) -> None:
    spec = file_job(registry, **changes)

    end = attempt(registry, claimed(registry, spec))

    assert (end.state, end.attempts) == ("failed", 1)
    assert end.error is not None
    assert end.error.code == code
    assert says in end.error.message
    assert registry.jobs.last_events(spec.id, 1)[0].data["from"] == "validating_files"
    assert registry.adapters.list(10) == []


def test_a_tenants_job_publishes_under_its_own_name_and_moves_its_own_alias(
    registry: Registry,
) -> None:
    attempt(registry, claimed(registry, file_job(registry, alias="prod")))
    gate = PublishGate("eval_loss", "alias:prod")
    jobs = [
        file_job(
            registry, alias="prod", publish_if=gate, seed=seed, space="alice", created_by="alice"
        )
        for seed in (1, 2)
    ]
    ends = [attempt(registry, claimed(registry, spec)) for spec in jobs]
    assert [end.state for end in ends] == ["succeeded", "succeeded"]
    assert [end.result and end.result.reference for end in ends] == ["poet@1", "poet@2"]
    view = registry.adapters_of("alice")
    assert view.resolve("poet@prod").name == "alice:poet"
    assert len(registry.adapters.versions("poet")) == 1
    assert registry.adapters_of("bob").resolve("poet").name == "poet"
    told = texts(registry, jobs[1].id)
    assert "Published as poet@2" in told
    assert "alice:" not in told


def test_a_job_whose_tenant_is_renamed_while_it_runs_publishes_for_the_new_one(
    registry: Registry,
) -> None:
    spec = file_job(registry, space="alice", created_by="alice")
    held = claimed(registry, spec)
    registry.tenants.rename("alice", "anna")
    end = attempt(registry, held)
    assert end.state == "succeeded"
    assert registry.adapters_of("anna").resolve("poet").name == "anna:poet"
    assert registry.adapters.list(10, space="alice") == []


def test_details_that_a_record_cannot_keep_are_left_out(registry: Registry) -> None:
    spec = file_job(registry, metadata={"fake": {"details": 70_000}})

    assert attempt(registry, claimed(registry, spec)).state == "succeeded"
    made = registry.adapters.resolve("poet").metadata["training"]
    assert made["spec"]["name"] == "poet"
    assert "details" not in made


def test_a_classifiers_labels_stand_where_answers_take_them_from() -> None:
    spec = spec_for("file-1", metadata={"mine": "1"})
    words: Any = (Path(), {}, {}, 1, 0, "sha256:0", "fourierft", {}, "test")
    assert metadata_of(spec, Trained(*words, labels=("no", "yes")))["labels"] == ["no", "yes"]
    assert "labels" not in metadata_of(spec, Trained(*words))
    large = Trained(*words, labels=("no", "yes"), details={"words": "x" * 70_000})
    made = metadata_of(spec, large)
    assert (made["mine"], made["labels"]) == ("1", ["no", "yes"])


def test_a_file_that_is_gone_fails_the_job(registry: Registry) -> None:
    spec = file_job(registry)
    registry.files.open(spec.training_file).unlink()

    end = attempt(registry, claimed(registry, spec))

    assert end.error is not None
    assert (end.state, end.error.code) == ("failed", "not_found")


def test_a_fault_of_the_program_is_tried_again_and_then_given_up(registry: Registry) -> None:
    spec = file_job(registry, metadata={"fake": {"raise": True}})
    states = [attempt(registry, claimed(registry, spec)).state for _ in range(3)]

    end = registry.jobs.get(spec.id)
    assert states == ["queued", "queued", "failed"]
    assert end.error is not None
    assert end.error.code == "internal_error"
    assert "a fault of the program" not in end.error.message


def test_faults_of_the_machine_are_named() -> None:
    assert fault_of(MemoryError()).code == "out_of_memory"
    assert fault_of(OSError(errno.ENOSPC, "x")).code == "storage_full"
    assert fault_of(OSError(errno.EIO, "/secret")).code == "internal_error"


class Meddling(Reporting):
    """Does something to the job, once, when it has come to a step, and waits until it is heard."""

    at = STEPS // 2
    acts: ClassVar[list[Callable[[], object]]] = []

    def progress(self, step: int, num_steps: int, seconds_left: float | None) -> None:
        super().progress(step, num_steps, seconds_left)
        self.step = step

    def wanted(self) -> Wanted:
        if Meddling.acts and self.step >= Meddling.at:
            Meddling.acts.pop()()
            until(lambda: super(Meddling, self).wanted() != "go", 20)
        return super().wanted()


@pytest.fixture
def meddle(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    monkeypatch.setattr("trainer.job.attempt.Reporting", Meddling)
    monkeypatch.setattr(Meddling, "acts", [])
    return Meddling.acts.append


def test_a_stopped_attempt_gives_its_job_back_with_a_checkpoint(
    registry: Registry, meddle: Any, digest: str
) -> None:
    spec, stop = file_job(registry), threading.Event()
    meddle(stop.set)

    back = attempt(registry, claimed(registry, spec), stop)

    steps = [point.step for point in registry.jobs.checkpoints(spec.id)]
    assert (back.state, back.failures, steps) == ("queued", 0, [5, 6])
    assert attempt(registry, claimed(registry, spec)).state == "succeeded"
    assert digest_of(registry) == digest
    points = registry.jobs.metrics(spec.id, 100)
    assert [point.step for point in points] == list(range(STEPS + 1))


def test_a_paused_job_goes_on_from_where_it_was(
    registry: Registry, meddle: Any, digest: str
) -> None:
    spec = file_job(registry)
    meddle(lambda: registry.jobs.pause(spec.id, now=3.0))

    assert attempt(registry, claimed(registry, spec)).state == "paused"

    registry.jobs.resume(spec.id, now=4.0)
    assert attempt(registry, claimed(registry, spec)).state == "succeeded"
    assert digest_of(registry) == digest


def test_a_cancelled_job_stops_within_a_step_and_publishes_nothing(
    registry: Registry, meddle: Any
) -> None:
    spec = file_job(registry)
    meddle(lambda: registry.jobs.cancel(spec.id, now=3.0))

    end = attempt(registry, claimed(registry, spec))

    assert (end.state, end.result) == ("cancelled", None)
    assert max(p.step for p in registry.jobs.metrics(spec.id, 100)) <= Meddling.at
    with pytest.raises(AdapterNotFound):
        registry.adapters.resolve("poet")


def test_a_job_taken_back_from_a_living_attempt_is_left_to_the_next_one(
    registry: Registry, meddle: Any, digest: str
) -> None:
    spec = file_job(registry)
    fences = []

    def take_over() -> None:
        seen = registry.jobs.get(spec.id)
        until(lambda: registry.claims.take_back(registry.jobs.get(seen.id), now=3.0))
        fences.append(claimed(registry, spec))

    meddle(take_over)
    assert attempt(registry, claimed(registry, spec)).is_held
    with pytest.raises(AdapterNotFound):
        registry.adapters.resolve("poet")

    assert attempt(registry, fences[0]).state == "succeeded"
    assert digest_of(registry) == digest


def test_an_attempt_whose_folder_was_taken_does_nothing(registry: Registry) -> None:
    spec = file_job(registry)
    fence = claimed(registry, spec)
    registry.job_folders.take(Fence(spec.id, 7))

    assert attempt(registry, fence).is_held
    assert registry.adapters.list(10) == []


@pytest.mark.parametrize("dies_at", ["publish", "alias", "finish"])
def test_a_death_around_publishing_leaves_one_version(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    class Death(BaseException):
        pass

    def die(*args: object, **named: object) -> None:
        raise Death

    spec = file_job(registry, alias="prod")
    with monkeypatch.context() as patched:
        if dies_at == "alias":
            patched.setattr("trainer.job.attempt.open_alias", die)
        elif dies_at == "finish":
            patched.setattr(registry.claims, "finish", die)
        else:
            real = registry.adapters.publish
            patched.setattr(registry.adapters, "publish", lambda *a, **n: (real(*a, **n), die())[0])
        with pytest.raises(Death):
            attempt(registry, claimed(registry, spec))
    assert registry.claims.take_back(registry.jobs.get(spec.id), now=4.0)

    # The next attempt would make other bytes, as on another device: still one version.
    end = attempt(registry, claimed(registry, spec), load="fake_training:never")

    assert end.state == "succeeded"
    assert [record.version for record in registry.adapters.versions("poet")] == [1]
    assert registry.adapters.get("poet").aliases == {"latest": 1, "prod": 1}


def test_an_adapter_deleted_before_its_job_ends_fails_the_job_at_once(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = registry.adapters.publish

    def publish(*args: Any, **named: Any) -> Any:
        made = real(*args, **named)
        registry.adapters.delete("poet")
        return made

    monkeypatch.setattr(registry.adapters, "publish", publish)
    spec = file_job(registry, alias="prod")
    end = attempt(registry, claimed(registry, spec))
    assert end.error is not None
    assert (end.state, end.error.code, end.attempts) == ("failed", "model_not_found", 1)
    assert "poet" in end.error.message


def test_a_registry_that_is_down_when_a_job_ends_is_waited_out(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = []

    def failing(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def ask(*args: Any, **named: Any) -> Any:
            if refused.count(name) < 2:
                refused.append(name)
                raise RegistryUnavailable("down")
            return real(*args, **named)

        monkeypatch.setattr(owner, name, ask)

    failing(registry.adapters, "publish")
    failing(registry.adapters, "move_alias")
    failing(registry.claims, "finish")
    spec = file_job(registry, alias="prod")

    end = attempt(registry, claimed(registry, spec))

    assert sorted(refused) == ["finish", "finish", "move_alias", "move_alias", "publish", "publish"]
    assert (end.state, end.attempts) == ("succeeded", 1)
    assert [record.version for record in registry.adapters.versions("poet")] == [1]
    assert registry.adapters.get("poet").aliases["prod"] == 1


def test_the_folder_of_a_job_goes_when_the_job_has_ended(registry: Registry, meddle: Any) -> None:
    spec, stop = file_job(registry), threading.Event()
    meddle(stop.set)
    attempt(registry, claimed(registry, spec), stop)
    newest = registry.job_folders.newest(spec.id)
    assert isinstance(newest, Path)
    assert [path.name for path in sorted(newest.glob("step-*"))][-1] == "step-000006.json"

    attempt(registry, claimed(registry, spec))

    assert registry.job_folders.newest(spec.id) is None
