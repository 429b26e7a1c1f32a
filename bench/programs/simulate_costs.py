"""Measures what `overtone bench simulate` needs to know of a replica, on this processor.

Steps are the engine's own, over a random base of the benches' shape: every row another adapter, and
pieces of prompts in the same step. Files were written just before: they are in the page cache.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch

from adapters_core.contract.method import Method
from adapters_core.layers.merge import materialise, merged_bytes
from adapters_core.layers.merge_threads import MergeThreads
from adapters_core.methods import FourierFT, LoRA
from bench.lib.bases import prompt_of, targets_of, write_many
from bench.lib.loop import Leases, Packer, read
from bench.lib.timing import interleaved
from bench.programs.engine import Bench
from bench.simulation.costs import Costs
from server.adapters.residency import Entry
from server.planning.costs import Curve
from server.scheduling.sequence import Sampling, TokenSequence
from server.scheduling.step import Batch, Work

FACTORED, LORA, MERGED = "fourierft, factored", "lora, factored", "fourierft, merged"
_METHODS: dict[str, Method] = {FACTORED: FourierFT(1000, 300.0), LORA: LoRA(16, 16.0)}
_DECODE_ROWS, _PROMPT_ROWS = (1, 8, 32), (64, 256)
_APART = 4
_FILES = 8


class ReplicaCosts:
    """Takes the figures of one base.

    Args:
        width, layers: of the base.
        rounds: of each timing.
    """

    def __init__(self, width: int, layers: int, rounds: int) -> None:
        self._bench, self._rounds = Bench(width, layers), rounds

    def measure(self) -> dict[str, Costs]:
        """Return the costs of each kind of adapter."""
        copies: Leases = [self._copy(number) for number in range(_APART)]
        leases: dict[str, Leases] = {
            name: self._bench.factored(method, "qv", max(_DECODE_ROWS))
            for name, method in _METHODS.items()
        }
        leases[MERGED] = [copies[0]] * max(_DECODE_ROWS)
        curves = self._curves(leases)
        apart_s = self._apart_s(copies)
        with tempfile.TemporaryDirectory() as folder:
            found = {
                name: Costs(curves[name], 0.0, *self._factored_load(Path(folder, name), method))
                for name, method in _METHODS.items()
            }
            load = self._merged_load(Path(folder, MERGED))
        return {**found, MERGED: Costs(curves[MERGED], apart_s, *load)}

    def _copy(self, number: int) -> Entry:
        made = self._bench.merged(_METHODS[FACTORED], "qv")
        return Entry((str(number), "merged"), payload=made.payload)

    def _curves(self, leases: Mapping[str, Leases]) -> dict[str, Curve]:
        decode = {name: self._bench.decode(found).decode for name, found in leases.items()}
        points: dict[str, list[tuple[int, float]]] = {name: [] for name in leases}
        most = max(_DECODE_ROWS)
        for rows, prompt in [(rows, 0) for rows in _DECODE_ROWS] + [
            (most, p) for p in _PROMPT_ROWS
        ]:
            batches = {
                name: Batch(works[:rows], self._prompts(prompt, leases[name][0]))
                for name, works in decode.items()
            }
            for name, seconds in self._seconds(batches).items():
                points[name].append((rows + prompt, seconds))
        return {name: Curve(tuple(found)) for name, found in points.items()}

    def _apart_s(self, copies: Leases) -> float:
        """Return what each further merged copy adds to a step of as many rows."""
        seconds = self._seconds(
            {
                "one": self._bench.decode([copies[0]] * len(copies)),
                "apart": self._bench.decode(copies),
            }
        )
        return max(0.0, seconds["apart"] - seconds["one"]) / (len(copies) - 1)

    def _prompts(self, length: int, lease: Entry | None) -> tuple[Work, ...]:
        """Return a prompt of so many tokens; none if there are none."""
        if not length:
            return ()
        tokens = tuple(prompt_of(0, length))
        sequence = TokenSequence(tokens, Sampling(max_tokens=1, temperature=0), lease)
        pool = self._bench.pool
        sequence.pages = pool.allocate(pool.pages_for(sequence.max_length)) or []
        return (Work.of(sequence, 0, length),)

    def _seconds(self, batches: Mapping[str, Batch]) -> dict[str, float]:
        engine = self._bench.engine
        steps: dict[str, Callable[[], object]] = {
            name: partial(engine.step, batch) for name, batch in batches.items()
        }
        return interleaved(steps, self._rounds)

    def _factored_load(self, folder: Path, method: Method) -> tuple[float, int]:
        """Return the seconds from a file to a slot, and the bytes of its tensors."""
        folders, packer = self._files(folder, method), Packer(self._bench.spec, self._bench.bases)
        seconds = _median_s(packer.from_file, folders)
        tensors = read(folders[0], self._bench.spec).layers.values()
        return seconds, sum(tensor.nbytes for layer in tensors for tensor in layer.values())

    def _merged_load(self, folder: Path) -> tuple[float, int]:
        """Return the seconds from a file to merged weights in earlier ones' place, and bytes."""
        bench, threads = self._bench, MergeThreads(lambda: True)
        linears = bench.injection.linears
        weights: dict[str, torch.Tensor] = {}

        def merge(one: Path) -> None:
            nonlocal weights
            adapter = read(one, bench.spec)
            methods, layers = adapter.methods, adapter.layers
            weights = materialise(methods, layers, linears, bench.bases, weights, threads)

        folders = self._files(folder, _METHODS[FACTORED])
        seconds = _median_s(merge, folders)
        return seconds, merged_bytes(read(folders[0], bench.spec).methods, linears)

    def _files(self, folder: Path, method: Method) -> list[Path]:
        spec = self._bench.spec
        return write_many(folder, method, spec, targets_of(spec, "qv"), _FILES)


def _median_s(load: Callable[[Path], object], folders: list[Path]) -> float:
    """Return the median seconds of a file's load; the first two are not timed."""
    seconds = []
    for folder in folders:
        started = time.perf_counter()
        load(folder)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[2:])
