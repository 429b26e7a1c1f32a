"""One attempt at a job, in this process: whatever happens in it, the record says it rightly."""

import errno
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

import fake_training
from jobs_made import fence_of, spec_for, upload
from live import until
from registry import job_log, keys
from registry.connect import Registry, connect
from registry.errors import AdapterNotFound, RegistryUnavailable
from registry.job_record import Fence, JobRecord
from registry.job_spec import Hyperparameters, JobSpec, PublishGate
from trainer.attempt import Attempt, fault_of
from trainer.child_task import ChildTask
from trainer.patience import Interrupted, patiently
from trainer.publishing import metadata_of
from trainer.report import Trained, Wanted
from trainer.reporting import Reporting
from trainer.tidy import tidy_all
from trainer.watch import Watch
from trainer.worker import Worker, WorkerSettings

STEPS = 12


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with connect("embedded", tmp_path_factory.mktemp("attempts")) as opened:
        opened.client.config_set("appendfsync", "no")
        yield opened


@pytest.fixture(autouse=True)
def _empty(registry: Registry) -> None:
    registry.client.flushall()


def file_job(registry: Registry, content: bytes = b'{"text": "a"}', **changes: Any) -> JobSpec:
    hyper = Hyperparameters(max_steps=STEPS, checkpoint_every_steps=5)
    words = {"hyperparameters": hyper, "base_fingerprint": fake_training.FINGERPRINT, **changes}
    spec = spec_for(upload(registry.files, content), **words)
    registry.jobs.create(spec, now=1.0)
    registry.jobs.queue(spec.id, now=1.0)
    return spec


def claimed(registry: Registry, spec: JobSpec) -> Fence:
    record = registry.claims.claim(spec.id, "one", now=2.0)
    assert record is not None
    return fence_of(record)


def attempt(
    registry: Registry, fence: Fence, stop: threading.Event | None = None, **changes: str
) -> JobRecord:
    words = {"run": "fake_training:run_job", "load": "fake_training:load", **changes}
    task = ChildTask(
        "", "", None, fence.job, fence.number, "w", "", "tiny", "cpu", 0, 1, 0, **words
    )
    Attempt(task, registry, stop or threading.Event()).run()
    return registry.jobs.get(fence.job)


def digest_of(registry: Registry, name: str = "poet") -> str:
    return registry.adapters.resolve(name).digest


def texts(registry: Registry, id_: str) -> str:
    return "\n".join(event.message for event in registry.jobs.events(id_, 1000))


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
    assert registry.adapters.list(10) == []


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
    monkeypatch.setattr("trainer.attempt.Reporting", Meddling)
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
    assert attempt(registry, claimed(registry, spec)).state == "running"
    with pytest.raises(AdapterNotFound):
        registry.adapters.resolve("poet")

    assert attempt(registry, fences[0]).state == "succeeded"
    assert digest_of(registry) == digest


def test_an_attempt_whose_folder_was_taken_does_nothing(registry: Registry) -> None:
    spec = file_job(registry)
    fence = claimed(registry, spec)
    registry.job_folders.take(Fence(spec.id, 7))

    assert attempt(registry, fence).state == "running"
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
            patched.setattr("trainer.attempt.open_alias", die)
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


@pytest.mark.parametrize(
    ("gate", "mine", "moved", "says"),
    [
        (None, {"eval_loss": 9.0}, True, ""),
        (PublishGate("eval_loss", "base"), {"eval_loss": 1.0}, True, ""),
        (
            PublishGate("eval_loss", "base"),
            {"eval_loss": 2.0},
            False,
            "eval_loss is 2, base's is 2",
        ),
        (PublishGate("accuracy", "base"), {"accuracy": 0.2}, False, "accuracy is 0.2"),
        (PublishGate("f1", "base"), {}, False, "has no metric 'f1'"),
        (PublishGate("accuracy", "alias:prod"), {"accuracy": 0.9}, True, ""),
        (PublishGate("accuracy", "alias:prod"), {"accuracy": 0.6}, False, "alias:prod's is 0.7"),
        (PublishGate("accuracy", "alias:none"), {"accuracy": 0.9}, False, "has no alias 'none'"),
    ],
)
def test_a_worse_adapter_is_not_put_under_the_alias(
    registry: Registry, gate: PublishGate | None, mine: dict[str, float], moved: bool, says: str
) -> None:
    first = file_job(
        registry, alias="prod", seed=1, metadata={"fake": {"metrics": {"accuracy": 0.7}}}
    )
    attempt(registry, claimed(registry, first))
    spec = file_job(registry, alias="prod", publish_if=gate, metadata={"fake": {"metrics": mine}})

    end = attempt(registry, claimed(registry, spec))

    assert end.state == "succeeded"
    assert registry.adapters.get("poet").aliases == {"latest": 2, "prod": 2 if moved else 1}
    assert says in texts(registry, spec.id)
    assert ("stays where it is" in texts(registry, spec.id)) == (not moved)


def test_the_first_version_opens_the_alias_that_it_is_to_beat(registry: Registry) -> None:
    gate = PublishGate("accuracy", "alias:prod")
    spec = file_job(registry, alias="prod", publish_if=gate)
    attempt(registry, claimed(registry, spec))
    assert registry.adapters.get("poet").aliases == {"latest": 1, "prod": 1}


def test_a_version_that_goes_while_it_is_compared_with_is_looked_up_again(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = file_job(registry, alias="prod", seed=1)
    attempt(registry, claimed(registry, first))
    real = registry.adapters.resolve
    gone = [AdapterNotFound("gone")]

    def resolve(reference: str) -> Any:
        if gone:
            raise gone.pop()
        return real(reference)

    gate = PublishGate("accuracy", "alias:prod")
    wish = {"fake": {"metrics": {"accuracy": 0.9}}}
    spec = file_job(registry, alias="prod", publish_if=gate, metadata=wish)
    monkeypatch.setattr(registry.adapters, "resolve", resolve)
    assert attempt(registry, claimed(registry, spec)).state == "succeeded"
    assert not gone
    assert registry.adapters.get("poet").aliases["prod"] == 2


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


def test_what_a_killed_process_had_not_said_is_said_by_the_next(
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


def test_patience_ends_when_told() -> None:
    waits: list[float] = []

    def ask() -> None:
        raise RegistryUnavailable("down")

    def interrupted(wait_s: float) -> bool:
        waits.append(wait_s)
        return len(waits) == 10

    with pytest.raises(Interrupted):
        patiently(ask, interrupted)
    assert waits == sorted(waits)
    assert waits[-1] == 2.0


def test_the_watch_takes_back_only_what_shows_no_life(registry: Registry) -> None:
    quiet, lively = (claimed(registry, file_job(registry)) for _ in range(2))
    watch = Watch(registry.claims, "tiny", lost_after_s=30.0)
    found = []
    for at in range(0, 41, 5):
        registry.claims.beat(lively)
        found += [(at, id_) for id_ in watch.look(float(at), 10.0)]

    assert found == [(30, quiet.job)]
    assert registry.jobs.get(quiet.job).state == "queued"
    assert registry.jobs.get(lively.job).state == "running"


def test_a_watch_that_was_away_concludes_nothing(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    fence = claimed(registry, file_job(registry))
    watch = Watch(registry.claims, "tiny", lost_after_s=30.0)
    assert watch.look(0.0, 10.0) == []
    assert watch.look(1000.0, 10.0) == []  # asleep meanwhile

    def down(base_name: str) -> list[JobRecord]:
        raise RegistryUnavailable("down")

    with monkeypatch.context() as patched:
        patched.setattr(registry.claims, "running", down)
        for at in (1010.0, 1020.0, 1029.0):
            with pytest.raises(RegistryUnavailable):
                watch.look(at, 10.0)
    assert watch.look(1035.0, 10.0) == []
    assert registry.jobs.get(fence.job).state == "running"


def test_bounded_news_keep_the_latest() -> None:
    assert job_log.shown("x" * 5000)[-1] == "…"
    assert job_log.shown("\udcff") == "\\udcff"


def test_the_folder_of_a_job_goes_when_the_job_has_ended(registry: Registry, meddle: Any) -> None:
    spec, stop = file_job(registry), threading.Event()
    meddle(stop.set)
    attempt(registry, claimed(registry, spec), stop)
    newest = registry.job_folders.newest(spec.id)
    assert isinstance(newest, Path)
    assert [path.name for path in sorted(newest.glob("step-*"))][-1] == "step-000006.json"

    attempt(registry, claimed(registry, spec))

    assert registry.job_folders.newest(spec.id) is None


def test_folders_that_dead_processes_left_go(registry: Registry) -> None:
    over, living = file_job(registry), file_job(registry)
    for spec in (over, living):
        registry.job_folders.take(claimed(registry, spec))
    registry.job_folders.take(Fence("ftjob-" + "0" * 24, 1))
    registry.jobs.cancel(over.id, now=3.0)

    tidy_all(registry)

    assert registry.job_folders.jobs() == [living.id]


def test_one_jobs_rubbish_does_not_end_a_worker(
    registry: Registry, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    id_ = "ftjob-" + "0" * 24
    registry.client.hset(keys.job(id_), "state", "running")
    registry.client.zadd(keys.JOBS_IN_STATE + "running", {id_: 1.0})
    worker = Worker(WorkerSettings("base", "tiny", tmp_path), registry)
    running = threading.Thread(target=worker.run)
    running.start()
    until(lambda: "what it should not" in caplog.text)
    assert running.is_alive()
    worker.stop()
    running.join(20)

    assert not running.is_alive()
