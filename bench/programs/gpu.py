"""Everything that needs a GPU, in one call of less than six minutes: a large base's figures.

What: on random weights of Llama-3.1-8B's shape in bfloat16, in this order: versions, the speed of a
copy, one layer replayed against eager; every kernel against torch's way, and attention at several
contexts; tokens/s of 32 decode rows, each with an adapter of its own (n = 1000, r = 16), against
the base's, by the host's clock and by events; a cold file to merged weights beside copying these;
the first token of an adapter that was never seen, beside a warm one; how many adapters 16 GB hold;
32 sequences against `model.generate`; the longest kernels of each kind of step. Every figure is one
line of JSON as soon as it is there; what could not be measured has its reason.
Why: a decode step on a GPU reads the base's weights once; what an adapter adds must be small.

    bench/gpu.sh [--out FILE] [--budget-s 330] [--rounds 50]
    bench/gpu.sh tests                                the tests marked `gpu`
    overtone bench gpu --tiny [--interpret]           on any machine
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from adapters_core.gpu_kernels.running import interpreted, runs_on
from bench.lib.device_timing import copied_bytes_a_second, in_turns
from bench.lib.figures import Figures
from bench.lib.program import Parser
from bench.lib.timing import machine
from bench.programs.gpu_agreement import merge_error, update_error
from bench.programs.gpu_base import GpuBase
from bench.programs.gpu_base_kernels import attention_times, base_errors
from bench.programs.gpu_shape import Sizes, of_llama_8b, of_nothing_much
from server.adapters.residency import Entry

_ROWS = 32
#: Kind -> (method, layers); every row has another adapter.
KINDS = {
    "fourierft qv": ("fourierft", "qv"),
    "fourierft seven": ("fourierft", "seven"),
    "lora qv": ("lora", "qv"),
    "lora seven": ("lora", "seven"),
    "loca qv": ("loca", "qv"),
    "waveletft qv": ("waveletft", "qv"),
}
METHODS = ("fourierft", "loca", "waveletft", "lora")
#: Kinds whose longest kernels are told.
PROFILED = ("base", "fourierft qv", "fourierft seven", "lora qv")
#: Tokens of context at which one layer's attention is timed.
CONTEXTS = (128, 2048, 8192)
#: Set, Triton's kernels run by its interpreter.
_INTERPRETS = "TRITON_INTERPRET"
#: Rows of a table of the profiler.
_LONGEST = 12


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Args:
        sizes: of the base.
        rounds: of a decode figure.
        calls: steps in a round.
        rows: of a step.
        copy_bytes: of the copy whose speed is measured.
        interprets: whether kernels are held against torch's way by Triton's interpreter.
    """

    sizes: Sizes
    rounds: int = 50
    calls: int = 20
    rows: int = _ROWS
    copy_bytes: int = 1 << 30
    interprets: bool = False


def versions(plan: Plan) -> dict[str, Any]:
    """Return what runs here, and the bytes a second that a copy reads and writes."""
    device = plan.sizes.device
    speed = copied_bytes_a_second(device, plan.copy_bytes, 5)
    return {
        **machine(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "triton": _version("triton"),
        "transformers": _version("transformers"),
        "kernels run": runs_on(device),
        "copy TB/s": speed / 1e12,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def one_layer(base: GpuBase, plan: Plan) -> dict[str, Any]:
    """Return milliseconds of a step as it is served, and of one without a recording."""
    batch = base.decode([None] * plan.rows)
    steps: dict[str, Callable[[], object]] = {
        "served": partial(base.engine.step, batch),
        "eager": partial(base.step_eagerly, batch),
    }
    taken = in_turns(steps, plan.sizes.device, max(1, plan.rounds // 5), plan.calls)
    found: dict[str, Any] = {f"{name} ms": 1e3 * one.wall for name, one in taken.items()}
    return found | {"max difference": base.difference_of_recordings(batch)}


def decode(base: GpuBase, plan: Plan, leases: Sequence[Entry | None]) -> dict[str, Any]:
    """Return tokens/s with these leases, the base's own, and the one's share of the other."""
    own, alone = base.decode(leases), base.decode([None] * len(leases))
    steps = {"own": partial(base.engine.step, own), "base": partial(base.engine.step, alone)}
    taken = in_turns(steps, plan.sizes.device, plan.rounds, plan.calls)
    found = {
        "tokens/s": len(leases) / taken["own"].wall,
        "base tokens/s": len(leases) / taken["base"].wall,
        "of base": taken["base"].wall / taken["own"].wall,
        "extra ms": 1e3 * (taken["own"].wall - taken["base"].wall),
        "recorded steps": base.num_recordings,
    }
    if taken["own"].device is not None and taken["base"].device is not None:
        found["of base, events"] = taken["base"].device / taken["own"].device
    return found


def merge(base: GpuBase, plan: Plan, name: str, which: str, folder: Path) -> dict[str, Any]:
    """Return milliseconds from an adapter's file to merged weights, and of copying these."""
    files = base.write(name, which, folder / f"{name}-{which}")
    runs = {
        "cold to merged": partial(base.load_merged, files),
        "read and write": partial(base.copy_weights, which),
    }
    taken = in_turns(runs, plan.sizes.device, max(1, plan.rounds // 10), 1)
    found = {f"{name} ms": 1e3 * one.wall for name, one in taken.items()}
    return found | {"times": taken["cold to merged"].wall / taken["read and write"].wall}


def first_token(base: GpuBase, plan: Plan, name: str, folder: Path) -> dict[str, Any]:
    """Return milliseconds of a cold load, and to a first token with and without one before."""
    files = base.write(name, "qv", folder / f"{name}-first")
    warm = base.load_factored(files)

    def cold() -> None:
        lease = base.load_factored(files)
        base.first_token(lease)
        base.forget(lease)

    runs: dict[str, Callable[[], object]] = {
        "warm": partial(base.first_token, warm),
        "cold": cold,
        "load": lambda: base.forget(base.load_factored(files)),
    }
    taken = in_turns(runs, plan.sizes.device, max(1, plan.rounds // 3), 1)
    base.forget(warm)
    return {f"{kind} ms": 1e3 * one.wall for kind, one in taken.items()}


def residents(base: GpuBase) -> dict[str, Any]:
    """Return how many adapters a bank of so many bytes holds, having filled and used one."""
    count, row_bytes, right = base.fill(base.sizes.bank_bytes)
    gigabytes = base.sizes.bank_bytes / 1e9
    return {"GB": gigabytes, "adapters": count, "bytes of each": row_bytes, "right": right}


def generate(base: GpuBase, plan: Plan) -> dict[str, Any]:
    """Return tokens/s of sequences here and by `model.generate` on one static batch."""
    new, seconds = base.against_generate(plan.rows, max(1, plan.rounds // 25))
    speeds = {kind: plan.rows * new / value for kind, value in seconds.items()}
    return {
        "tokens/s": speeds["ours"],
        "generate tokens/s": speeds["generate"],
        "of generate": speeds["ours"] / speeds["generate"],
    }


def profile(base: GpuBase, leases: Sequence[Entry | None]) -> dict[str, Any]:
    """Return the longest kernels of a step: their names, calls, and microseconds in all."""
    batch = base.decode(leases)
    for _ in range(3):
        base.engine.step(batch)
    with torch.profiler.profile() as profiler:
        base.engine.step(batch)
        base.wait()
    rows = profiler.key_averages()
    is_gpu = base.sizes.device.type == "cuda"
    by = "self_device_time_total" if is_gpu else "self_cpu_time_total"
    print(rows.table(sort_by=by, row_limit=_LONGEST, max_name_column_width=60), file=sys.stderr)
    longest = sorted(rows, key=lambda row: -getattr(row, by))[:_LONGEST]
    return {"kernels": [[row.key, row.count, getattr(row, by)] for row in longest]}


def made_base(figures: Figures, name: str, sizes: Sizes) -> GpuBase | None:
    """Return a base, and enter which ways it takes; None if it cannot be made."""
    made: list[GpuBase] = []

    def make() -> dict[str, Any]:
        made.append(GpuBase(sizes))
        return {"parameters": made[0].num_parameters, **made[0].ways}

    figures.take(name, make)
    return made[0] if made else None


def measure_layer(figures: Figures, plan: Plan) -> None:
    """Take what one layer tells: recordings, and every kernel against torch's way."""
    base = made_base(figures, "base of one layer", replace(plan.sizes, layers=1))
    if base is None:
        return
    figures.take("one layer", partial(one_layer, base, plan))
    shapes, dtype, device = base.shapes("seven"), plan.sizes.dtype, plan.sizes.device
    figures.take("kernels base", partial(base_errors, device, dtype))
    for context in CONTEXTS:
        timed = partial(attention_times, device, dtype, context, max(1, plan.rounds // 5))
        figures.take(f"attention {context}", timed)
        free_memory()
    linears = {path: base.injection.linears[path] for path in shapes}
    with interpreted() if plan.interprets else nullcontext():
        for name in METHODS:
            own = (base.method(name), shapes, base.bases, dtype)
            figures.take(f"kernels {name}", partial(update_error, *own))
            figures.take(f"merges {name}", partial(merge_error, own[0], linears, base.bases))
            free_memory()


def measure_decode(figures: Figures, base: GpuBase, plan: Plan) -> None:
    """Take steps of single tokens, and the longest kernels of some of them."""
    leases: dict[str, Callable[[], list[Entry | None]]] = {
        kind: partial(base.factored, method, which, plan.rows)
        for kind, (method, which) in KINDS.items()
    }
    leases["merged qv"] = lambda: [base.merged("qv")] * plan.rows
    leases["half base"] = lambda: [*leases["fourierft qv"]()[::2], *[None] * (plan.rows // 2)]
    leases["base"] = lambda: [None] * plan.rows
    for kind, make in leases.items():
        own = make()
        if kind != "base":
            figures.take(f"decode {kind}", partial(decode, base, plan, own))
        if kind in PROFILED:
            figures.take(f"profile {kind}", partial(profile, base, own))
        del own
        free_memory()


def measure_base(figures: Figures, base: GpuBase, plan: Plan, folder: Path) -> None:
    """Take what is measured over the whole base."""
    measure_decode(figures, base, plan)
    for name, which in (("fourierft", "qv"), ("fourierft", "seven"), ("lora", "qv")):
        figures.take(f"merge {name} {which}", partial(merge, base, plan, name, which, folder))
    for name in ("fourierft", "lora"):
        figures.take(f"first token {name}", partial(first_token, base, plan, name, folder))
    figures.take("residents", partial(residents, base))
    free_memory()
    figures.take("generate", partial(generate, base, plan))


def measure_all(figures: Figures, plan: Plan) -> None:
    """Take every figure that there is time for."""
    figures.take("machine", partial(versions, plan))
    measure_layer(figures, plan)
    free_memory()
    base = made_base(figures, "base", plan.sizes)
    if base is not None:
        with TemporaryDirectory() as folder:
            measure_base(figures, base, plan, Path(folder))


def free_memory() -> None:
    """Give back what no tensor uses."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure; print every figure as it comes and one JSON at the end."""
    parser = Parser(prog="overtone bench gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a small base on the CPU")
    parser.add_argument("--out", type=Path, help="file that every figure is added to, JSON lines")
    parser.add_argument("--budget-s", type=float, default=330.0)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument(
        "--interpret", action="store_true", help="with --tiny: kernels by Triton's interpreter"
    )
    options = parser.parse_args(arguments)
    if options.interpret and os.environ.get(_INTERPRETS) != "1":
        # Triton reads it when it is imported, which transformers' imports have done by now.
        command = [sys.executable, "-m", "bench.programs.gpu", *(arguments or sys.argv[1:])]
        os.execve(sys.executable, command, os.environ | {_INTERPRETS: "1"})
    figures = Figures(options.budget_s, options.out)
    reason: Mapping[str, str] = {}
    if options.tiny:
        small = {"rows": 4, "copy_bytes": 1 << 20, "interprets": options.interpret}
        tiny = Plan(of_nothing_much(), min(options.rounds, 2), 2, **small)
        with torch.inference_mode():
            measure_all(figures, tiny)
    elif torch.cuda.is_available():
        with torch.inference_mode():
            measure_all(figures, Plan(of_llama_8b(), options.rounds))
    else:
        reason = {"all": "no GPU is here; --tiny runs the same on a CPU"}
    told = {"bench": "gpu", "tiny": options.tiny, "machine": machine(), "rows": figures.rows}
    print(json.dumps(told | {"missing": {**figures.missing, **reason}}), flush=True)


if __name__ == "__main__":
    main()
