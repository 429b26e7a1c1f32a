"""A worker's machine is gone in the midst of a job: another one's worker goes on."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from registry.connect import connect
from registry.errors import RegistryError
from waiting import until
from worker_scene import STEPS, Scene, children

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with connect("embedded", tmp_path) as registry:
        opened = Scene(registry, tmp_path, patience_s=300.0)
        yield opened
        opened.close()


@contextmanager
def watched(scene: Scene, name: str) -> Iterator[list[str]]:
    """Look up the adapter all the time; yields the digests that were seen, each found whole."""
    seen: list[str] = []
    faults: list[Exception] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.002):
            try:
                found = scene.registry.adapters.versions(name)
            except RegistryError:
                continue  # there is no such name yet
            try:
                for record in found:
                    scene.registry.blobs.open_whole(record.digest)
                    seen.append(record.digest)
            except RegistryError as error:
                faults.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join(30)
    assert faults == []


@pytest.mark.parametrize("seed", range(3))
def test_a_job_of_a_machine_that_is_gone_goes_on_elsewhere_and_nothing_half_made_is_seen(
    scene: Scene, seed: int
) -> None:
    gone = scene.start()
    spec = scene.file()
    with watched(scene, spec.name) as seen:
        scene.at_step(spec, random.Random(seed).randrange(STEPS))
        scene.start()
        for process in (*children(gone), gone):  # at once, as by the power
            process.kill()
        psutil.wait_procs([gone], 30)
        held = scene.job(spec)
        end = scene.ended(spec)
        assert end.state == "succeeded", end.error
        until(lambda: seen)
    (version,) = scene.registry.adapters.versions(spec.name)
    assert {*seen} == {version.digest}
    if not held.is_final:  # it was not over when the machine went
        assert (end.worker, end.attempts) == ("worker-1", 2)
