"""A training step beside PEFT's: time, and the memory that it adds to the base's.

What: forward, backward and the optimiser's step of the benches' base, with query and value adapted,
and with all seven linears; ours FourierFT and WaveletFT against PEFT's own, and LoCA, which PEFT
does not have, against PEFT's LoRA r = 16. Times are interleaved in one process, medians over the
rounds. The floor is a step that trains one vector under the first layer: what the base alone takes;
extra_ratio compares what is beyond it.
Memory is the peak of a process of its own, less what the base alone holds there.
Why: training and serving share the forward; a server that trains must not lose to the library
that people train with now.

    overtone bench training [--rounds 7] [--width 1024] [--layers 8] [--rows 4] [--tokens 128]
"""

import copy
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import FourierFTConfig, LoraConfig, PeftConfig, WaveFTConfig, get_peft_model
from torch import Tensor, nn

from adapters_core.base.spec import spec_of
from adapters_core.contract.method import Method
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import inject
from adapters_core.layers.training_plan import TrainingPlan
from adapters_core.methods import FourierFT, LoCA, WaveletFT
from bench.lib.bases import ENDINGS, VOCABULARY, llama, targets_of
from bench.lib.program import Parser
from bench.lib.timing import interleaved, report

_N = 1000
_MEMORY_STEPS = 3

Step = Callable[[], object]
#: (base, which linears) -> the model to run, and what is trained.
Adapted = Callable[[nn.Module, str], tuple[nn.Module, Iterable[nn.Parameter]]]


def _ours(method: Method) -> Adapted:
    def adapted(base: nn.Module, which: str) -> tuple[nn.Module, Iterable[nn.Parameter]]:
        spec, injection = spec_of(base, "bench"), inject(base)
        shapes = {target: spec.targets[target] for target in targets_of(spec, which)}
        bases = BasisCache(torch.device("cpu"))
        plan = TrainingPlan(method, shapes, bases, torch.Generator().manual_seed(0))
        injection.switch.plan = plan
        return base, plan.parameters()

    return adapted


def _theirs(config: PeftConfig) -> Adapted:
    def adapted(base: nn.Module, which: str) -> tuple[nn.Module, Iterable[nn.Parameter]]:
        own = copy.copy(config)
        own.target_modules = set(ENDINGS[which])  # type: ignore[attr-defined]
        model: nn.Module = get_peft_model(base, own)
        return model, (p for p in model.parameters() if p.requires_grad)

    return adapted


def _alone(base: nn.Module, which: str) -> tuple[nn.Module, Iterable[nn.Parameter]]:
    """Add a vector to what the first layer reads: the gradient goes through the whole base."""
    embedding = base.get_input_embeddings()  # type: ignore[operator]
    vector = nn.Parameter(torch.zeros(embedding.weight.shape[1]))
    embedding.register_forward_hook(lambda module, given, found: found + vector)
    return base, [vector]


CONTENDERS: dict[str, Adapted] = {
    "base": _alone,
    "fourierft": _ours(FourierFT(_N, 300.0)),
    "waveletft": _ours(WaveletFT(_N)),
    "loca": _ours(LoCA(_N)),
    "peft fourierft": _theirs(FourierFTConfig(n_frequency=_N, scaling=300.0)),
    "peft waveletft": _theirs(WaveFTConfig(n_frequency=_N)),
    "peft lora": _theirs(LoraConfig(r=16, lora_alpha=16)),
}
#: Ours -> what it is held against.
AGAINST = {
    "fourierft": "peft fourierft",
    "waveletft": "peft waveletft",
    "loca": "peft lora",
}


def step_of(name: str, which: str, base: nn.Module, ids: Tensor) -> Step:
    """Return one whole training step of a contender on ids `[rows, tokens]`."""
    model, parameters = CONTENDERS[name](base, which)
    optimizer = torch.optim.AdamW(list(parameters), lr=1e-3)

    def step() -> None:
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def ids_of(rows: int, tokens: int) -> Tensor:
    """Return random ids `[rows, tokens]`."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, VOCABULARY, (rows, tokens), generator=generator)


def peak_bytes(name: str, which: str, width: int, layers: int, ids: Tensor) -> int:
    """Return what a few steps added at their peak to what this process held with the base alone."""
    base = llama(width, layers)
    Path("/proc/self/clear_refs").write_text("5")  # begin the peak anew
    before = _status("VmRSS")
    step = step_of(name, which, base, ids)
    for _ in range(_MEMORY_STEPS):
        step()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (found,) = (line for line in lines if line.startswith(field + ":"))
    return 1024 * int(found.split()[1])


def rows_of(which: str, options: Any) -> list[dict[str, Any]]:
    """Return one row for each method of ours."""
    ids, width, layers = ids_of(options.rows, options.tokens), options.width, options.layers
    steps = {name: step_of(name, which, llama(width, layers), ids) for name in CONTENDERS}
    seconds = interleaved(steps, options.rounds)
    memory = {name: _peak_elsewhere(name, which, options) for name in CONTENDERS}
    return [
        {
            "what": f"training step, {which}, {ours} against {theirs}",
            "ms": 1e3 * seconds[ours],
            "their_ms": 1e3 * seconds[theirs],
            "time_ratio": seconds[ours] / seconds[theirs],
            "floor_ratio": seconds["base"] / seconds[theirs],
            "extra_ratio": _extra(seconds, ours) / _extra(seconds, theirs),
            "bytes": memory[ours],
            "their_bytes": memory[theirs],
            "memory_ratio": memory[ours] / memory[theirs] if memory[theirs] else None,
            "memory_floor_ratio": memory["base"] / memory[theirs] if memory[theirs] else None,
        }
        for ours, theirs in AGAINST.items()
    ]


def _extra(seconds: Mapping[str, float], name: str) -> float:
    """Return what a contender's step takes beyond the floor, in seconds."""
    return seconds[name] - seconds["base"]


def _peak_elsewhere(name: str, which: str, options: Any) -> int:
    """Return a contender's peak, measured in a fresh process. Needs Linux; 0 elsewhere."""
    if sys.platform != "linux":
        return 0
    sizes = [f"--{key}={getattr(options, key)}" for key in ("width", "layers", "rows", "tokens")]
    command = [sys.executable, "-m", "bench", "training", "--peak-of", name, which, *sizes]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout.splitlines()[-1])["bytes"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = Parser(prog="overtone bench training", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=128, help="of each row")
    parser.add_argument(
        "--targets", nargs="+", choices=sorted(ENDINGS), default=list(ENDINGS), help="linears"
    )
    parser.add_argument(
        "--peak-of", nargs=2, metavar=("NAME", "TARGETS"), help="one contender's memory only"
    )
    options = parser.parse_args(arguments)
    if options.peak_of:
        ids = ids_of(options.rows, options.tokens)
        name, which = options.peak_of
        found = peak_bytes(name, which, options.width, options.layers, ids)
        print(json.dumps({"bytes": found}))
        return
    report("training", [row for which in options.targets for row in rows_of(which, options)])
