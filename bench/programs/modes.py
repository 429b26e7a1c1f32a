"""Factored, merged and auto side by side, over 1 to 32 different adapters in one batch.

What: tokens/s of 32 sequences at a time (64 tokens of prompt, 32 generated) that take turns over A
adapters (FourierFT, n = 1000, on q and v), with every row factored, every row merged (all A copies
in memory), and with the planner's choice, calibrated at start as a server does it; and what auto
reaches of the better of the two. Then the step time of running rows while merges go on beside them.
Why: auto must not be worse than what a person would have set by hand, whatever the traffic. The
three run in one process, interleaved, on one engine.

    overtone bench modes [--rounds 5] [--width 1024] [--layers 8] [--only 1,4,32]
"""

import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from adapters_core.format.read import read_adapter
from adapters_core.format.write import CONFIG_NAME, WEIGHTS_NAME
from adapters_core.layers.merge import merged_bytes
from adapters_core.methods import FourierFT
from bench.lib.bases import prompt_of, targets_of, write_many
from bench.lib.loop import EngineOfBase
from bench.lib.program import Parser
from bench.lib.timing import interleaved, report
from registry import BlobPaths
from server.adapters.loader import Loader
from server.adapters.memory import Capacities
from server.adapters.modes import ModeSetting
from server.adapters.residency import Entry
from server.base.resident import ResidentBase
from server.planning.build import ModeOptions, placement_of
from server.planning.placement import Placement
from server.scheduling.page_pool import PagePool
from server.scheduling.scheduler import Scheduler
from server.scheduling.sequence import Sampling, TokenSequence
from server.telemetry.observer import Observer

_RUNNING, _PROMPT, _NEW = 32, 64, 32
_PAGES = _RUNNING * 8
_COUNTS = (1, 2, 4, 8, 16, 32)
_MODES: tuple[ModeSetting, ...] = ("factored", "merged", "auto")
#: Runs before the clock starts: the planner sees its traffic, and what it wants is merged.
_SETTLING = 6


class Bench(EngineOfBase):
    """One engine, and a loader with its placement for each mode over the same adapter files."""

    def __init__(self, width: int, layers: int, folder: Path) -> None:
        super().__init__(width, layers, _PAGES)
        method, targets = FourierFT(1000, 300.0), targets_of(self.spec, "qv")
        self.folders = write_many(folder, method, self.spec, targets, max(_COUNTS))
        files = self.open(str(self.folders[0]))
        adapter = read_adapter(files.file, files.config.read_bytes(), self.spec)
        self.copy_bytes = merged_bytes(adapter.methods, self.injection.linears)
        self.loaders: list[Loader] = []

    @staticmethod
    def open(digest: str) -> BlobPaths:
        """Return an adapter's files; its folder is its digest here."""
        return BlobPaths(Path(digest, WEIGHTS_NAME), Path(digest, CONFIG_NAME))

    def placement(self, mode: ModeSetting, copies: int) -> tuple[Loader, Placement]:
        """Return a loader with room for so many merged copies, and what chooses modes over it."""
        room = copies * self.copy_bytes
        base = ResidentBase(self.spec, self.injection, self.bases)
        loader = Loader(
            self.open,
            base,
            Capacities(1 << 30, 1 << 30, room),
            Observer(),
            lambda entry: None,
        )
        self.loaders.append(loader)
        options = ModeOptions(mode, False, room, _RUNNING, 2.0)
        placement, _ = placement_of(loader, base, options, Observer())
        return loader, placement

    def run(self, placement: Placement, count: int, on_step: Callable[[float], None]) -> int:
        """Generate for 32 sequences over `count` adapters; return the tokens generated."""
        scheduler, leases = Scheduler(PagePool(_PAGES, 32), 512, _RUNNING), []
        for i in range(_RUNNING):
            digest = str(self.folders[i % count])
            placed = placement.place(digest, _PROMPT, _NEW, _RUNNING - 1)
            assert placed.lease is not None
            leases.append(placed.lease)
            sampling = Sampling(max_tokens=_NEW, temperature=0)
            scheduler.add(TokenSequence(tuple(prompt_of(i, _PROMPT)), sampling, placed.lease))
        _wait(lambda: all(lease.is_ready for lease in leases))
        while batch := scheduler.next(0.0):
            begun = time.perf_counter()
            tokens = self.engine.step(batch)
            on_step(time.perf_counter() - begun)
            scheduler.advance(batch, [token for token in tokens if token])
        for lease in leases:
            placement.release(lease)
        return _RUNNING * _NEW

    def close(self) -> None:
        """End the loaders' threads."""
        for loader in self.loaders:
            loader.close()


def _wait(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.001)


def sweep(bench: Bench, counts: list[int], rounds: int) -> list[dict[str, Any]]:
    """Return one row per number of adapters."""
    rows = []
    for count in counts:
        placements = {mode: bench.placement(mode, count)[1] for mode in _MODES}
        for _ in range(_SETTLING):
            bench.run(placements["auto"], count, lambda seconds: None)
        runs: dict[str, Callable[[], object]] = {
            mode: partial(bench.run, placement, count, lambda seconds: None)
            for mode, placement in placements.items()
        }
        seconds = interleaved(runs, rounds)
        speeds = {mode: _RUNNING * _NEW / value for mode, value in seconds.items()}
        best = max(speeds["factored"], speeds["merged"])
        auto = placements["auto"]
        planned = sum(auto.mode_of(str(folder)) == "merged" for folder in bench.folders[:count])
        ratio = {"auto_of_best": speeds["auto"] / best, "planned_merges": planned}
        rows.append({"what": f"tokens/s over {count} adapters", "adapters": count} | speeds | ratio)
    return rows


def merge_beside(bench: Bench, rounds: int) -> dict[str, Any]:
    """Return the median step of factored rows, alone and while merges go on without a pause."""
    _, placement = bench.placement("factored", 1)
    merging, _ = bench.placement("merged", 1)
    steps: dict[str, list[float]] = {"alone": [], "beside": []}
    merges = 0
    bench.run(placement, 8, lambda seconds: None)
    for _ in range(rounds):
        bench.run(placement, 8, steps["alone"].append)
        stop = threading.Event()
        made: list[Entry] = []
        worker = threading.Thread(target=_merge_until, args=(merging, bench.folders, stop, made))
        worker.start()
        bench.run(placement, 8, steps["beside"].append)
        stop.set()
        worker.join()
        merges += len(made)
    alone, beside = (statistics.median(found) for found in steps.values())
    return {
        "what": "step while merges go on beside it",
        "alone_ms": alone * 1e3,
        "beside_ms": beside * 1e3,
        "ratio": beside / alone,
        "merges": merges,
    }


def _merge_until(
    loader: Loader, folders: list[Path], stop: threading.Event, made: list[Entry]
) -> None:
    while not stop.is_set():
        entry = loader.acquire(str(folders[len(made) % len(folders)]), "merged")
        _wait(lambda entry=entry: entry.is_ready)  # type: ignore[misc]
        loader.release(entry)
        made.append(entry)


def main() -> None:
    """Measure and print."""
    parser = Parser(prog="overtone bench modes", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--only", default=",".join(map(str, _COUNTS)), help="numbers of adapters")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options.width, options.layers, Path(folder))
        try:
            counts = [int(count) for count in options.only.split(",")]
            rows = sweep(bench, counts, options.rounds)
            rows.append(merge_beside(bench, options.rounds))
        finally:
            bench.close()
    report("modes", rows)
