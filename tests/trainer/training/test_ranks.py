"""Several processes do one job: the same adapter, and nothing that outlives or outwaits another.

Real processes, joined by gloo on this machine; only the bases are tiny.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

import tiny
from registry.connect import connect
from registry.jobs.spec import Hyperparameters
from small_jobs import Watcher, files_of, job, lines
from trainer.base import LoadedBase, load
from trainer.errors import RankLost
from trainer.interfaces import JobFiles, Wanted
from trainer.job.attempt import fault_of
from trainer.process.devices import MAX_RANKS, devices_of, threads_of
from trainer.process.settings import LOAD, RUN, WorkerSettings
from trainer.training.rank_processes import RankPool, rank_pool
from trainer.training.ranks import DistributedRanks, Ranks
from trainer.training.run import run_job
from waiting import until
from worker_scene import Scene, children


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before, env = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the other ranks
    yield
    torch.set_num_threads(before)
    os.environ.pop("OMP_NUM_THREADS")
    if env is not None:
        os.environ["OMP_NUM_THREADS"] = env


@dataclass(frozen=True)
class Place:
    """A base in a folder and in memory, and a job's files."""

    source: Path
    base: LoadedBase
    files: JobFiles

    def pool(self, folder: Path, **bounds: float) -> RankPool:
        settings = WorkerSettings(
            base=str(self.source), base_name=self.base.spec.name, device="cpu", ranks=2
        )
        return rank_pool(settings, "causal_lm", self.files, folder, **bounds)


def newest_rank() -> int:
    """Return the process id of the rank that was started last."""
    found = [p for p in children(psutil.Process()) if "trainer.job.rank" in words_of(p)]
    return max(found, key=lambda process: process.create_time()).pid


def words_of(process: psutil.Process) -> list[str]:
    """Return its command line; one that has ended meanwhile has none."""
    with suppress(psutil.NoSuchProcess):
        return process.cmdline()
    return []


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Completions of very different lengths: a mean of the ranks' means would be another loss."""
    folder = tmp_path_factory.mktemp("place")
    source = tiny.save_base(folder / "base")
    rows = ({"prompt": f"{i}=", "completion": "ab" * (1 + i * i % 17)} for i in range(27))
    files = JobFiles(lines(folder / "rows.jsonl", rows))
    return Place(source, load(source, "causal_lm", "tiny", "cpu"), files)


@pytest.fixture(scope="class")
def pool(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RankPool]:
    """Two ranks, which may do one job after the other; a process is of one pool at a time."""
    with place.pool(tmp_path_factory.mktemp("pool")) as opened:
        yield opened


class TestTwoRanks:
    @pytest.mark.parametrize(
        ("method", "changes"),
        [
            ("fourierft", {"gradient_accumulation": 3, "batch_size": 7}),
            ("loca", {"packing": False}),  # locations take turns with coefficients
            ("clora", {"gradient_checkpointing": True}),  # has a regulariser
            ("frod", {"batch_size": 13}),  # a basis of each rank's own; a last step of one example
        ],
    )
    def test_two_ranks_learn_what_one_learns_and_twice_the_same(
        self, place: Place, pool: RankPool, tmp_path: Path, method: str, changes: dict[str, Any]
    ) -> None:
        spec = job(place.base, method=method, method_config={}, max_steps=14, **changes)
        whole, shared = Watcher(), Watcher()
        alone = run_job(spec, place.base, place.files, tmp_path / "alone", whole)
        done = run_job(spec, place.base, place.files, tmp_path / "two", shared, pool)
        run_job(spec, place.base, place.files, tmp_path / "again", Watcher(), pool)

        assert files_of(tmp_path / "two") == files_of(tmp_path / "again")
        one, two = (load_file(tmp_path / n / "adapter_model.safetensors") for n in ("alone", "two"))
        for name, tensor in one.items():  # AdamW makes much of a gradient near zero
            difference = two[name].double() - tensor.double()
            assert difference.norm() <= 5e-5 * tensor.double().norm(), name
        assert [step for step, _ in shared.values] == [step for step, _ in whole.values]
        for (_, value), (_, expected) in zip(shared.values, whole.values, strict=True):
            assert value == pytest.approx(expected, rel=1e-3)
        assert (alone.details["ranks"], done.details["ranks"]) == (1, 2)
        assert "by 2 processes" in " ".join(message for _, message in shared.events)

    def test_the_first_rank_makes_samples_while_the_others_wait(
        self, place: Place, pool: RankPool, tmp_path: Path
    ) -> None:
        plain = job(place.base, max_steps=8)
        sampled = job(place.base, max_steps=8, checkpoint_samples=1)
        watcher = Watcher()
        run_job(plain, place.base, place.files, tmp_path / "plain", Watcher(), pool)
        run_job(sampled, place.base, place.files, tmp_path / "sampled", watcher, pool)
        assert [one.step for one in watcher.sampled] == [3, 6]
        assert watcher.sampled[0].samples
        assert files_of(tmp_path / "sampled") == files_of(tmp_path / "plain")


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_attempt_and_the_next_goes_on_from_its_checkpoint(
    place: Place, tmp_path: Path
) -> None:
    spec = job(place.base)
    with place.pool(tmp_path / "pool") as cut:
        run_job(spec, place.base, place.files, tmp_path / "whole", Watcher(), cut)
        killing = Watcher(_once(12, lambda: os.kill(newest_rank(), signal.SIGKILL)))
        with pytest.raises(RankLost, match="rank 1 of the job's 2 ended with SIGKILL"):
            run_job(spec, place.base, place.files, tmp_path / "cut", killing, cut)
    assert killing.checkpoints

    watcher = Watcher()
    with place.pool(tmp_path / "cut") as pool:
        run_job(spec, place.base, place.files, tmp_path / "cut", watcher, pool)

    assert watcher.values[0][0] > 1
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")
    assert fault_of(RankLost("rank 1 died")).code == "process_died"  # so it is tried again


def _once(number: int, act: Callable[[], None]) -> Callable[[int], Wanted]:
    def disturb(asked: int) -> Wanted:
        if asked == number:
            act()
        return "go"

    return disturb


def test_a_tensor_that_no_rank_has_a_gradient_for_keeps_none(tmp_path: Path) -> None:
    """Else AdamW would move it: by its decay, and by what it remembers."""
    used, unused = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    (2 * used).sum().backward()
    ranks = DistributedRanks(0, 1, torch.device("cpu"))
    ranks.join(tmp_path / "meeting")
    try:
        assert ranks.sum([used, unused], 1.5, 7) == (1.5, 7)
    finally:
        ranks.leave()
    assert torch.equal(used.grad, torch.full((3,), 2.0))  # type: ignore[arg-type]
    assert unused.grad is None


@pytest.mark.parametrize(("count", "ranks"), [(7, 2), (8, 4), (1, 3)])
def test_the_ranks_shares_are_the_whole_step(count: int, ranks: int) -> None:
    shares = []
    for number in range(ranks):
        rank = Ranks()
        rank.number, rank.count = number, ranks
        shares.append(rank.share(list(range(count))))
    assert sorted(sum(shares, [])) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert shares[0]


def test_devices_are_one_a_rank() -> None:
    assert devices_of("auto") == ("auto",)
    assert devices_of("cuda:1") == ("cuda:1",)
    assert devices_of("cuda:0, cuda:2") == devices_of("cuda:0,cuda:2", 2) == ("cuda:0", "cuda:2")
    assert devices_of("cpu", 3) == devices_of("auto", 3) == ("cpu",) * 3
    assert threads_of(None, 1) is None
    assert threads_of(3, 2) == 3
    assert threads_of(None, 1000) == 1


@pytest.mark.parametrize(
    ("device", "ranks", "says"),
    [
        ("cuda:0", 2, "--device cuda:0,cuda:1"),
        ("cuda:0,cuda:1", 3, "3 ranks, but 2 devices"),
        ("cuda:0,cuda:0", 1, "twice"),
        ("cuda:0,cpu", 1, "'cpu' in the list"),
        ("cpu,cpu", 1, "--ranks"),
        ("cuda:0,", 1, "device ''"),
        ("cpu", MAX_RANKS + 1, str(MAX_RANKS)),
    ],
)
def test_devices_and_ranks_that_do_not_fit_are_refused(device: str, ranks: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        devices_of(device, ranks)


@pytest.mark.slow
def test_the_wait_for_a_hanging_rank_is_bounded(place: Place, tmp_path: Path) -> None:
    with place.pool(tmp_path / "job", timeout_s=10.0) as pool:
        freezing = Watcher(_once(9, lambda: os.kill(newest_rank(), signal.SIGSTOP)))
        with pytest.raises(RankLost, match="did not answer in time"):
            run_job(job(place.base), place.base, place.files, tmp_path / "job", freezing, pool)
        pid = newest_rank()
    assert not psutil.pid_exists(pid)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fourierft", "frod"])
def test_a_rank_with_another_base_takes_no_part(place: Place, tmp_path: Path, method: str) -> None:
    spec = job(place.base, method=method, method_config={})
    if method == "frod":  # the job names no base: the basis tells them apart
        spec = replace(spec, base_fingerprint="")
    moved = replace(place, source=tiny.save_base(tmp_path / "other", seed=1))
    with moved.pool(tmp_path / "job") as pool, pytest.raises(RankLost, match="with code 1"):
        run_job(spec, place.base, place.files, tmp_path / "job", Watcher(), pool)


@pytest.mark.slow
def test_a_rank_without_the_base_is_named_with_its_reason(place: Place, tmp_path: Path) -> None:
    nowhere = replace(place, source=tmp_path / "nowhere")
    with nowhere.pool(tmp_path / "job") as pool, pytest.raises(RankLost) as raised:
        run_job(job(place.base), place.base, place.files, tmp_path / "job", Watcher(), pool)
    assert "rank 1 on cpu could not load the base" in str(raised.value)
    assert "nowhere" in str(raised.value)


_WAITING = """
import sys, threading
from pathlib import Path
from trainer.training.rank_processes import rank_pool
from trainer.interfaces import JobFiles
from trainer.process.settings import WorkerSettings
folder = Path(sys.argv[1])
files = JobFiles(folder / "none")
settings = WorkerSettings(base="nowhere", device="cpu", ranks=2)
with rank_pool(settings, "causal_lm", files, folder, notice_s=0.1):
    threading.Event().wait()
"""


@pytest.mark.slow
def test_a_process_ends_after_a_rank_even_if_no_call_of_it_fails(tmp_path: Path) -> None:
    """As between GPUs, where a collective operation may wait for the dead."""
    done = subprocess.run([sys.executable, "-c", _WAITING, str(tmp_path)], timeout=100, check=False)
    assert done.returncode == 70


def ranks_of(scene: Scene) -> list[psutil.Process]:
    """Return the processes that the job's own process has started."""
    found: list[psutil.Process] = until(lambda: children(scene.child()))  # type: ignore[arg-type]
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_worker_with_two_ranks_survives_every_death_and_leaves_no_process(
    place: Place, tmp_path: Path
) -> None:
    text = place.files.training.read_bytes()
    hyper = Hyperparameters(n_epochs=99, max_steps=200, batch_size=4, checkpoint_every_steps=5)
    words: dict[str, Any] = {"content": text, "hyperparameters": hyper}
    words["base_fingerprint"] = place.base.spec.fingerprint
    with connect("embedded", tmp_path) as registry:
        scene = Scene(registry, tmp_path, patience_s=120.0)  # twice the programs to start
        try:
            real = {"base": str(place.source), "device": "cpu", "ranks": 2, "threads": 1}
            worker = scene.start(**real, run=RUN, load=LOAD)
            quiet = scene.file(name="quiet", **words)
            assert scene.ended(quiet).state == "succeeded"
            shaken = scene.file(name="shaken", **words)

            found = scene.at_step(shaken, 12)
            (rank,) = ranks_of(scene)
            assert rank.cmdline()[1:] == ["-m", "trainer.job.rank"]
            rank.kill()
            found = scene.at_step(shaken, found.progress.step + 8, found.fence)
            processes = [scene.child(), *ranks_of(scene)]
            worker.kill()
            assert not psutil.wait_procs(processes, 30)[1]
            scene.start(**real, run=RUN, load=LOAD)
            found = scene.at_step(shaken, found.progress.step + 8, found.fence)
            processes = [scene.child(), *ranks_of(scene)]
            registry.jobs.pause(shaken.id, now=2.0)
            assert not psutil.wait_procs(processes, 30)[1]
            assert scene.job(shaken).state == "paused"
            registry.jobs.resume(shaken.id, now=3.0)

            end = scene.ended(shaken)
            assert end.state == "succeeded", end.error
            digests = [registry.adapters.resolve(name).digest for name in ("quiet", "shaken")]
            assert digests[0] == digests[1]
            messages = [event.message for event in registry.jobs.events(shaken.id, 1000)]
            assert any("rank 1 of the job's 2 ended with SIGKILL" in line for line in messages)
        finally:
            scene.close()
