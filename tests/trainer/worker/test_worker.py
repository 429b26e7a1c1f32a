"""Whatever is killed, and whenever: one version, and the bytes of an undisturbed run.

Real workers, real processes of jobs, a real registry; only the mathematics is small
(`fake_training`: every step hashes the state of the one before).
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import fake_training
from adapters_core.format.read import read_adapter
from jobs_made import BASE, spec_for
from registry.common.fence import Fence
from registry.connect import connect
from registry.jobs.spec import Hyperparameters, JobSpec
from trainer.interfaces import JobFiles, Reporter
from trainer.process.child_task import ChildTask
from trainer.process.settings import LOAD, RUN, WorkerSettings
from waiting import until
from worker_scene import CONTENT, PROGRAM, STEPS, TESTS, Scene, children


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with connect("embedded", tmp_path) as registry:
        opened = Scene(registry, tmp_path)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def digest(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], str]:
    """Return the digest of an undisturbed run of so many steps."""

    def digest(steps: int = STEPS) -> str:
        folder = tmp_path_factory.mktemp("undisturbed")
        (folder / "data").write_bytes(CONTENT)
        hyper = Hyperparameters(max_steps=steps, checkpoint_every_steps=10)
        spec = spec_for("file-" + "0" * 24, hyperparameters=hyper)
        base = fake_training.FakeBase(fake_training.SPEC)
        files = JobFiles(folder / "data")
        made = fake_training.run_job(spec, base, files, folder, Reporter()).folder
        config = (made / "adapter_config.json").read_bytes()
        file = made / "adapter_model.safetensors"
        return read_adapter(file, config, fake_training.SPEC).description.digest

    return digest


def assert_one_version(scene: Scene, spec: JobSpec, digest: str) -> None:
    end = scene.ended(spec)
    assert end.state == "succeeded", end.error
    versions = scene.registry.adapters.versions(spec.name)
    assert [(record.version, record.digest) for record in versions] == [(1, digest)]
    assert scene.registry.blobs.open(digest).file.read_bytes()
    steps = [point.step for point in scene.registry.jobs.metrics(spec.id, 1000)]
    assert steps == list(range(spec.hyperparameters.max_steps + 1))


def kill(process: psutil.Process) -> None:
    """Kill a process and wait until it is gone."""
    process.kill()
    process.wait(30)


def kill_registry(scene: Scene) -> None:
    server = scene.registry.server
    assert server is not None
    pid = until(lambda: server.pid)
    os.kill(pid, signal.SIGKILL)
    until(lambda: server.pid not in (None, pid))


def kill_worker(scene: Scene, worker: psutil.Popen) -> None:
    """Kill a worker; its job's process must not outlive it."""
    orphans = children(worker)
    kill(worker)
    _, alive = psutil.wait_procs(orphans, 30)
    assert not alive, "the job's process outlived its worker"


def strike(scene: Scene, target: str) -> None:
    worker = next(each for each in scene.workers if each.is_running())
    if target in ("child", "both"):
        for child in children(worker):
            child.kill()
    if target in ("worker", "both"):
        kill_worker(scene, worker)
        scene.start()
    if target == "registry":
        kill_registry(scene)


@pytest.mark.slow
def test_kills_of_child_worker_and_registry_leave_one_version(
    scene: Scene, digest: Callable[[int], str]
) -> None:
    scene.start()
    spec = scene.file(500)
    found = scene.at_step(spec, 20)
    assert scene.child().cmdline()[1:] == ["-m", "trainer.job.child"]  # and no password
    kill_registry(scene)  # the job trains on: no attempt is lost
    found = scene.at_step(spec, found.progress.step + 10)
    assert found.attempts == 1
    strike(scene, "child")
    found = scene.at_step(spec, found.progress.step + 10, found.fence)
    assert found.attempts == 2
    strike(scene, "worker")

    assert_one_version(scene, spec, digest(500))
    assert scene.ended(spec).attempts == 3


@pytest.mark.slow
@pytest.mark.timeout(1200)  # on cores that others use, too
def test_twenty_kills_at_random_points_leave_one_version_each(
    scene: Scene, digest: Callable[[int], str]
) -> None:
    dice = random.Random(5)
    scene.start()
    expected = digest(STEPS)
    for number in range(20):
        spec = scene.file(name=f"poet-{number}")
        step = dice.randrange(0, STEPS)
        if step:
            scene.at_step(spec, step)
        else:  # while it is claimed, or its program is loaded
            until(lambda spec=spec: scene.job(spec).state != "queued")
        strike(scene, ("child", "worker", "both", "registry")[number % 4])
        assert_one_version(scene, spec, expected)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_twenty_kills_of_one_job_leave_one_version(
    scene: Scene, digest: Callable[[int], str]
) -> None:
    dice = random.Random(6)
    scene.start()
    spec = scene.file(2000)
    for number in range(20):
        found = scene.job(spec)
        if found.is_final:
            break
        scene.at_step(spec, found.progress.step + dice.randrange(11, 40), found.fence - 1)
        strike(scene, ("child", "worker", "both", "registry")[number % 4])

    end = scene.ended(spec)
    assert end.state == "succeeded", end.error
    (version,) = scene.registry.adapters.versions(spec.name)
    assert version.digest == digest(2000)
    assert number == 19


@pytest.mark.slow
def test_a_stopped_worker_gives_its_job_back_and_another_goes_on(
    scene: Scene, digest: Callable[[int], str]
) -> None:
    first = scene.start()
    spec = scene.file()
    scene.at_step(spec, 15)
    first.send_signal(signal.SIGTERM)
    assert first.wait(30) == 0
    back = scene.job(spec)
    checkpoints = scene.registry.jobs.checkpoints(spec.id)
    assert (back.state, back.failures) == ("queued", 0)
    assert checkpoints[-1].step == back.progress.step  # nothing of it is lost

    scene.start()

    assert_one_version(scene, spec, digest(STEPS))


@pytest.mark.slow
def test_ctrl_c_stops_a_worker_as_sigterm_does(scene: Scene) -> None:
    worker = scene.start()
    spec = scene.file()
    scene.at_step(spec, 15)
    worker.send_signal(signal.SIGINT)

    assert worker.wait(30) == 0
    assert scene.job(spec).state == "queued"


@pytest.mark.slow
def test_a_zombie_cannot_publish_what_another_has_taken_over(
    scene: Scene, digest: Callable[[int], str]
) -> None:
    """A worker and its job are frozen, declared dead, replaced, and thawed again."""
    zombie = scene.start()
    spec = scene.file()
    old = scene.at_step(spec, 15)
    frozen = [zombie, *zombie.children()]
    for process in reversed(frozen):
        process.suspend()
    scene.start()
    scene.at_step(spec, 20, old.fence)
    for process in frozen:
        process.resume()

    assert_one_version(scene, spec, digest(STEPS))
    end = scene.ended(spec)
    assert (end.attempts, end.worker) == (2, "worker-1")
    until(lambda: not children(zombie))  # it noticed, and waits for the next job
    assert zombie.is_running()


@pytest.mark.slow
def test_cancel_and_pause_reach_the_process(scene: Scene, digest: Callable[[int], str]) -> None:
    scene.start()
    spec = scene.file(1000)
    scene.at_step(spec, 15)
    child = scene.child()
    scene.registry.jobs.cancel(spec.id, now=2.0)
    child.wait(30)
    assert max(p.step for p in scene.registry.jobs.metrics(spec.id, 1000)) < 1000

    paused = scene.file()
    scene.at_step(paused, 15)
    child = scene.child()
    scene.registry.jobs.pause(paused.id, now=2.0)
    child.wait(30)
    assert scene.job(paused).state == "paused"
    scene.registry.jobs.resume(paused.id, now=3.0)

    assert_one_version(scene, paused, digest(STEPS))


@pytest.mark.slow
def test_a_process_that_ends_by_itself_is_tried_again_and_given_up(scene: Scene) -> None:
    scene.start()
    spec = scene.file(metadata={"fake": {"exit": 7}})

    end = scene.ended(spec)

    assert (end.state, end.attempts) == ("failed", 3)
    assert end.error is not None
    assert end.error.code == "process_died"
    assert "code 7" in end.error.message


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_process_that_hangs_is_ended_and_tried_again(
    scene: Scene, digest: Callable[[int], str]
) -> None:
    scene.patience_s = 300.0
    scene.start(stalled_after_s=30.0)  # a start on cores that others use is silent for a while
    spec = scene.file(metadata={"fake": {"hang": True}})

    assert_one_version(scene, spec, digest(STEPS))
    assert scene.ended(spec).attempts == 2
    messages = [event.message for event in scene.registry.jobs.events(spec.id, 100)]
    assert any("made no progress for 30 s" in message for message in messages)


@pytest.mark.slow
def test_two_workers_share_the_jobs(scene: Scene) -> None:
    specs = [scene.file(300, name=f"poet-{number}") for number in range(4)]
    scene.start()
    scene.start()

    ends = [scene.ended(spec) for spec in specs]

    assert {end.state for end in ends} == {"succeeded"}
    assert {end.worker for end in ends} == {"worker-0", "worker-1"}


@pytest.mark.slow
def test_a_worker_that_starts_before_its_registry_waits_for_it(tmp_path: Path) -> None:
    with connect("embedded", tmp_path) as registry:
        scene = Scene(registry, tmp_path)
        spec = scene.file(20)
        server = registry.server
        assert server is not None
        url = server.url
    # No server listens on this socket now.
    words = {"registry": url, "data": str(tmp_path), "base": "fake", "base_name": BASE, "nice": 0}
    words |= {"run": "fake_training:run_job", "load": "fake_training:load"}
    env = {**os.environ, "PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-c", PROGRAM, json.dumps(words)]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as worker:
        try:
            assert worker.stderr is not None
            assert "cannot be used: its socket is not there" in until(worker.stderr.readline)
            with connect("embedded", tmp_path) as registry:
                assert Scene(registry, tmp_path).ended(spec).state == "succeeded"
        finally:
            worker.kill()


def test_a_task_survives_its_way_to_the_process() -> None:
    fence = Fence("ftjob-" + hashlib.sha256(b"x").hexdigest()[:24], 3)
    settings = WorkerSettings(base="a/b", registry="redis://:secret@h", data=Path("/d"), nice=5)
    task = ChildTask(settings=settings, fence=fence, parent=1)
    assert ChildTask.model_validate_json(task.model_dump_json()) == task
    assert task.settings.base_name == "b"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_real_training_survives_kills_to_the_same_digest(scene: Scene, tmp_path: Path) -> None:
    import tiny
    from trainer.base import load

    base = tiny.save_base(tmp_path / "base")
    fingerprint = load(base, "causal_lm").spec.fingerprint
    lines = [json.dumps({"text": f"line {i} of a small text, number {i % 7}"}) for i in range(60)]
    hyper = Hyperparameters(max_steps=60, batch_size=4, checkpoint_every_steps=5)
    words = {"content": "\n".join(lines).encode(), "base_fingerprint": fingerprint}
    words |= {"hyperparameters": hyper, "seed": 3}
    scene.start(base=str(base), device="cpu", threads=1, run=RUN, load=LOAD)
    quiet = scene.file(name="quiet", **words)
    assert scene.ended(quiet).state == "succeeded"
    shaken = scene.file(name="shaken", **words)
    found = scene.at_step(shaken, 12)
    scene.child().kill()
    scene.at_step(shaken, found.progress.step + 8, found.fence)
    kill_registry(scene)
    scene.child().kill()

    end = scene.ended(shaken)

    assert end.state == "succeeded", end.error
    assert end.attempts == 3
    (one,) = scene.registry.adapters.versions("quiet")
    (other,) = scene.registry.adapters.versions("shaken")
    assert one.digest == other.digest
    assert one.metrics["eval_loss"] < one.metrics["base"]["eval_loss"]
