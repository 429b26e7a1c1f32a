"""Everything that needs a GPU, in one call: the tests marked `gpu`, then a large base's figures.

What: on random weights of Llama-3.1-8B's shape in bfloat16: tokens/s of 32 decode rows for the
base, for 32 FourierFT adapters (n = 1000; query and value, and all linears), 32 LoRA adapters
(r = 16) and one merged adapter; a cold file to merged weights beside copying them; time to the
first token of an adapter that was never seen, beside a warm one; how many adapters 16 GB hold; and
32 sequences against `model.generate`. What could not be measured is null, with its reason.
Why: a decode step on a GPU reads the base's weights once; what an adapter adds must be small.

    bench/gpu.sh [--budget-s 520] [--rounds 7]
    overtone bench gpu --tiny                         on any machine
"""

import argparse
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from bench.lib.timing import interleaved, machine
from bench.programs.gpu_base import GpuBase, Sizes, of_llama_8b, of_nothing_much
from server.adapters.residency import Entry

ROOT = Path(__file__).resolve().parents[2]
_ROWS = 32
#: Kind -> (method, layers); every row has another adapter.
_KINDS = {
    "fourierft qv": ("fourierft", "qv"),
    "fourierft all": ("fourierft", "seven"),
    "lora qv": ("lora", "qv"),
    "lora all": ("lora", "seven"),
}


class Report:
    """Values by name, and the reasons for those that are missing."""

    def __init__(self, budget_s: float) -> None:
        self._until = time.monotonic() + budget_s
        self.values: dict[str, Any] = {}
        self.reasons: dict[str, str] = {}

    def take(self, names: tuple[str, ...], measure: Callable[[], dict[str, Any]]) -> None:
        """Enter what `measure` gives for the names; null with a reason for those it does not."""
        self.values |= dict.fromkeys(names)
        if time.monotonic() > self._until:
            self.reasons |= dict.fromkeys(names, "no time was left")
            return
        started = time.monotonic()
        try:
            self.values |= measure()
        except Exception as error:  # one figure less, not none
            traceback.print_exc()
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            self.reasons |= {name: reason for name in names if self.values[name] is None}
        free_memory()
        told = {name: self.values[name] for name in names}
        print(f"{time.monotonic() - started:6.1f} s  {json.dumps(told)}", file=sys.stderr)


def free_memory() -> None:
    """Give back what no tensor uses."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def run_tests() -> dict[str, Any]:
    """Run the tests that need a GPU."""
    if not torch.cuda.is_available():
        raise RuntimeError("no GPU is here")
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "tests/gpu"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=240
    )
    print(done.stdout[-6000:], done.stderr[-2000:], file=sys.stderr)
    lines = done.stdout.strip().splitlines()
    return {"tests": lines[-1] if lines else "", "tests_passed": done.returncode == 0}


def decode(base: GpuBase, rounds: int, rows: int) -> dict[str, Any]:
    """Return tokens/s of every kind and its part of the base's own."""
    leases: dict[str, list[Entry | None]] = {"base": [None] * rows}
    for kind, (method, which) in _KINDS.items():
        leases[kind] = base.factored(method, which, rows)
    leases["merged fourierft qv"] = [base.merged("qv")] * rows
    steps: dict[str, Callable[[], object]] = {}
    for kind, own in leases.items():
        steps[kind] = partial(base.engine.step, base.decode(own))
        for _ in range(3):  # the second time a step is recorded
            steps[kind]()
    seconds = interleaved(steps, rounds)
    found: dict[str, Any] = {}
    for kind, value in seconds.items():
        found[f"decode {kind} tokens/s"] = rows / value
        found[f"decode {kind} of base"] = seconds["base"] / value
    extra = {kind: seconds[kind] - seconds["base"] for kind in _KINDS}
    for which in ("qv", "all"):
        found[f"extra fourierft of lora {which}"] = extra[f"fourierft {which}"] / max(
            extra[f"lora {which}"], 1e-9
        )
    found["recorded steps"] = base.num_recordings
    return found


def cold_to_merged(base: GpuBase, rounds: int, folder: Path) -> dict[str, Any]:
    """Return milliseconds from an adapter's file to merged weights, beside writing those anew."""
    found: dict[str, Any] = {}
    for which in ("qv", "seven"):
        files, name = base.write(which, folder / which), which.replace("seven", "all")
        seconds = interleaved(
            {
                "merged": partial(base.load_merged, files),
                "copied": partial(base.copy_weights, which),
            },
            max(3, rounds // 2),
        )
        found[f"cold to merged {name} ms"] = seconds["merged"] * 1e3
        found[f"read and write {name} ms"] = seconds["copied"] * 1e3
    return found


def first_token(base: GpuBase, rounds: int, folder: Path) -> dict[str, Any]:
    """Return milliseconds to the first token with an adapter from its file, and with one there."""
    files = base.write("qv", folder / "first")
    warm = base.load_factored(files)
    seconds = interleaved(
        {
            "warm": lambda: base.first_token(warm),
            "cold": lambda: base.first_token(base.load_factored(files)),
        },
        rounds,
    )
    return {f"first token {kind} ms": value * 1e3 for kind, value in seconds.items()}


def many(base: GpuBase, size_bytes: int) -> dict[str, Any]:
    """Return how many adapters a bank of so many bytes holds, having filled and used one."""
    count, row_bytes, right = base.fill(size_bytes)
    return {"adapters in 16 GB": count, "bytes an adapter": row_bytes, "all of them right": right}


def generate(base: GpuBase, rounds: int, rows: int) -> dict[str, Any]:
    """Return tokens/s of 32 sequences here and by `model.generate` on one static batch."""
    new, seconds = base.against_generate(rows, max(2, rounds // 3))
    speeds = {kind: rows * new / value for kind, value in seconds.items()}
    return {
        "batch tokens/s": speeds["ours"],
        "generate tokens/s": speeds["generate"],
        "batch of generate": speeds["ours"] / speeds["generate"],
    }


def names_of_decode() -> tuple[str, ...]:
    """Return what `decode` measures."""
    kinds = ("base", *_KINDS, "merged fourierft qv")
    names = [f"decode {kind} {what}" for kind in kinds for what in ("tokens/s", "of base")]
    extras = [f"extra fourierft of lora {which}" for which in ("qv", "all")]
    return (*names, *extras, "recorded steps")


def measure_all(report: Report, sizes: Sizes, rounds: int, rows: int, with_tests: bool) -> None:
    """Take every figure that there is time for."""
    if with_tests:
        report.take(("tests", "tests_passed"), run_tests)
    made: list[GpuBase] = []

    def make() -> dict[str, Any]:
        made.append(GpuBase(sizes))
        return {"base parameters": made[0].num_parameters, "attention": made[0].attention}

    report.take(("base parameters", "attention"), make)

    def on_base(measure: Callable[..., dict[str, Any]], *others: Any) -> dict[str, Any]:
        if not made:
            raise RuntimeError("the base could not be made")
        return measure(made[0], *others)

    with TemporaryDirectory() as folder:
        place = Path(folder)
        merging = tuple(
            f"{what} {which} ms"
            for which in ("qv", "all")
            for what in ("cold to merged", "read and write")
        )
        first = ("first token warm ms", "first token cold ms")
        batch = ("batch tokens/s", "generate tokens/s", "batch of generate")
        held = ("adapters in 16 GB", "bytes an adapter", "all of them right")
        report.take(names_of_decode(), lambda: on_base(decode, rounds, rows))
        report.take(merging, lambda: on_base(cold_to_merged, rounds, place))
        report.take(first, lambda: on_base(first_token, rounds, place))
        report.take(batch, lambda: on_base(generate, rounds, rows))
        report.take(held, lambda: on_base(many, sizes.bank_bytes))


def main() -> None:
    """Measure and print one JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a small base on the CPU, no tests")
    parser.add_argument("--budget-s", type=float, default=520.0)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    report = Report(options.budget_s)
    if options.tiny or torch.cuda.is_available():
        sizes, rows = (of_nothing_much(), 4) if options.tiny else (of_llama_8b(), _ROWS)
        measure_all(report, sizes, options.rounds, rows, with_tests=not options.tiny)
    else:
        report.reasons["all"] = "no GPU is here; --tiny runs the same on a CPU"
    told = {"bench": "gpu", "tiny": options.tiny, "machine": machine()}
    print(json.dumps(told | {"values": report.values, "reasons": report.reasons}))


if __name__ == "__main__":
    main()
