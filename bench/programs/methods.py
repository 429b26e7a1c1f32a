"""Every method beside PEFT and beside LoRA r = 16: files, deltas, merging, mixed batches.

What, per method and width, on a stack of square linears:
- seconds a layer of what the method makes of the base's weights, computed once for a base;
- file bytes of one layer; milliseconds a layer of `delta`, of `delta_many` and of merging into
  memory that an evicted adapter has left;
- a cold file to merged weights against PEFT's load + merge of the same file, and PEFT's
  `get_delta_weight` against `delta`;
- a mixed batch of 1, 8 and 32 rows, every row another adapter, through all linears of the stack
  against the base's linears alone, and what it adds against what LoRA r = 16 adds.
Why: the coefficients are a hundred times smaller than the activations' traffic; loading and
applying them must cost accordingly little.
Both sides of every ratio run interleaved, medians over the rounds. Every linear has a parent of its
own, so no analysis is shared; in a model q, k and v share theirs.

    overtone bench methods [--widths 512 1024 2048 4096] [--rounds 9] [--methods NAME ...]
"""

import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, PeftType
from torch import Tensor, nn

from adapters_core.base.spec import spec_of, weights_of
from adapters_core.contract.method import Method
from adapters_core.contract.method_registry import registered
from adapters_core.contract.rows import Rows
from adapters_core.format.read import read_adapter
from adapters_core.format.write import CONFIG_NAME, WEIGHTS_NAME, write_adapter
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import inject
from adapters_core.layers.merge import materialise
from adapters_core.layers.serving_plan import FactoredGroup, ServingPlan
from adapters_core.methods import FourierFT, LoCA, LoRA, WaveletFT
from bench.lib.bases import random_adapter
from bench.lib.program import Parser
from bench.lib.timing import interleaved, report

_ROWS = (1, 8, 32)
#: At least this much of base weights, so that a layer's weights are not in cache when it runs.
_STACK_BYTES = 64 << 20
_TUNED: dict[str, Method] = {
    "fourierft": FourierFT(1000, 300.0),
    "loca": LoCA(1000),
    "waveletft": WaveletFT(1000),
    "lora": LoRA(16, 16.0),
}


class Block(nn.Module):
    """One linear under a parent of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width, bias=False)


class Stack(nn.Module):
    """Square linears one after the other."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        """Return x `[T, width]` after all linears."""
        for block in self.blocks:
            x = block.linear(x)  # type: ignore[operator]
        return x

    def prepare_inputs_for_generation(self) -> None:
        """PEFT asks for it because a file's config says that it is for a causal LM."""


class Contender:
    """One method on one stack."""

    def __init__(self, method: Method, width: int, scratch: Path) -> None:
        torch.manual_seed(0)
        self.width, self.method = width, method
        self.count = max(2, _STACK_BYTES // (4 * width * width))
        self.stack = Stack(width, self.count).requires_grad_(False)
        self.spec = spec_of(self.stack, "stack")
        self.bases = BasisCache(torch.device("cpu"), weights_of(self.stack, self.spec))
        self.injection = inject(self.stack)
        started = time.perf_counter()
        self.methods, self.layers = random_adapter(method, self.spec.targets, self.bases, 0)
        #: Of a layer; fresh coefficients are drawn in it, which takes milliseconds.
        self.basis_s = (time.perf_counter() - started) / self.count if method.needs_base else 0.0
        self.folder = scratch / f"{method.name}-{width}"
        write_adapter(self.folder, self.methods, self.layers, self.spec)
        self._merged: dict[str, Tensor] = {}

    @property
    def file_bytes(self) -> float:
        """Return the bytes of the coefficient file over the number of layers."""
        return (self.folder / WEIGHTS_NAME).stat().st_size / self.count

    def delta(self) -> None:
        """Every layer's dense delta, one by one."""
        for target, layer in self.layers.items():
            self.methods[target].delta(layer, self.spec.targets[target], self._basis(target))

    def delta_many(self) -> None:
        """The deltas of as many layers as one chunk of merging takes."""
        first = next(iter(self.layers))
        layers = [self.layers[first]] * self.at_once
        self.methods[first].delta_many(layers, self.spec.targets[first], self._basis(first))

    @property
    def at_once(self) -> int:
        """Return how many layers `delta_many` is given."""
        return max(1, (1 << 22) // (self.width * self.width))

    def merge(self) -> None:
        """Merge the whole stack over what the last merge left."""
        linears = self.injection.linears
        self._merged = materialise(self.methods, self.layers, linears, self.bases, self._merged)

    def cold(self) -> None:
        """A cold file to merged weights."""
        config = (self.folder / CONFIG_NAME).read_bytes()
        adapter = read_adapter(self.folder / WEIGHTS_NAME, config, self.spec)
        linears = self.injection.linears
        self._merged = materialise(
            adapter.methods, adapter.layers, linears, self.bases, self._merged
        )

    def steps(self, num_rows: int) -> dict[str, Callable[[], object]]:
        """Return a pass through the stack without and with another adapter in every row."""
        bank = Bank(Layout.of(self.methods, self.spec.targets), self.bases, 4, self.layers)
        slots = [
            bank.add(bank.pack(*random_adapter(self.method, self.spec.targets, self.bases, i)))
            for i in range(num_rows)
        ]
        x = torch.randn(num_rows, self.width, generator=torch.Generator().manual_seed(1))
        rows = Rows(torch.tensor(slots), num_rows)

        def run(plan: ServingPlan) -> None:
            self.injection.switch.plan = plan
            self.stack(x)
            self.injection.switch.plan = None

        def adapted() -> None:
            run(ServingPlan(factored=(FactoredGroup(bank, rows, None),)))

        return {"base": lambda: run(ServingPlan()), "adapted": adapted}

    def _basis(self, target: str) -> Any:
        shape = self.spec.targets[target]
        return self.bases.get(self.methods[target], shape, target, self.layers[target])


class Peft:
    """The same file in PEFT."""

    def __init__(self, contender: Contender) -> None:
        torch.manual_seed(0)
        self.folder = contender.folder
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stack = Stack(contender.width, contender.count).requires_grad_(False)
            self.model = PeftModel.from_pretrained(stack, self.folder, "first").eval()

    def delta(self) -> None:
        """Every layer's dense delta."""
        for module in self.model.modules():
            if hasattr(module, "get_delta_weight"):
                module.get_delta_weight("first")  # type: ignore[operator]

    def cold(self) -> None:
        """Load and merge."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.model.load_adapter(self.folder, "cold")
            self.model.set_adapter("cold")
            self.model.merge_adapter(["cold"])

    def forget(self) -> None:
        """Undo `cold`."""
        self.model.unmerge_adapter()
        self.model.delete_adapter("cold")
        self.model.set_adapter("first")


def file_row(contender: Contender, rounds: int) -> dict[str, Any]:
    """Return sizes and times of deltas and merging, beside PEFT's where PEFT has the method."""
    runs: dict[str, Callable[[], object]] = {
        "delta": contender.delta,
        "delta_many": contender.delta_many,
        "merge": contender.merge,
        "cold": contender.cold,
    }
    if contender.method.peft_type in PeftType.__members__:
        peft = Peft(contender)
        runs |= {"peft_delta": peft.delta, "peft_cold": peft.cold, "forget": peft.forget}
    seconds = interleaved(runs, rounds)
    layers = dict.fromkeys(runs, contender.count) | {"delta_many": contender.at_once}
    row: dict[str, Any] = {"file_bytes": round(contender.file_bytes)}
    row |= {f"{n}_ms": 1e3 * s / layers[n] for n, s in seconds.items() if n != "forget"}
    if "peft_cold" in seconds:
        row["delta_ratio"] = seconds["peft_delta"] / seconds["delta"]
        row["cold_ratio"] = seconds["peft_cold"] / seconds["cold"]
    return row


def apply_row(contender: Contender, lora: Contender, rounds: int) -> dict[str, Any]:
    """Return what mixed batches cost against the base, and their extra against LoRA's."""
    row: dict[str, Any] = {}
    for num_rows in _ROWS:
        runs = contender.steps(num_rows)
        runs["lora_base"], runs["lora"] = lora.steps(num_rows).values()
        with torch.inference_mode():
            seconds = interleaved(runs, 2 * rounds)
        extra = seconds["adapted"] - seconds["base"]
        row[f"apply_{num_rows}"] = seconds["adapted"] / seconds["base"]
        row[f"extra_us_{num_rows}"] = 1e6 * extra / contender.count
        row[f"of_lora_{num_rows}"] = extra / (seconds["lora"] - seconds["lora_base"])
    return row


def contenders(names: list[str]) -> Mapping[str, Method]:
    """Return the methods to measure, LoRA last."""
    chosen = [n for n in registered() if not names or n in names or n == "lora"]
    ordered = sorted(chosen, key=lambda name: name == "lora")
    return {name: _TUNED.get(name) or registered()[name]() for name in ordered}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = Parser(prog="overtone bench methods", description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[512, 1024, 2048, 4096])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--methods", nargs="+", default=[], choices=sorted(registered()))
    parser.add_argument("--only-apply", action="store_true", help="leave files and PEFT out")
    options = parser.parse_args(arguments)
    rows = []
    for width in options.widths:
        with tempfile.TemporaryDirectory() as scratch:
            lora = Contender(_TUNED["lora"], width, Path(scratch))
            for name, method in contenders(options.methods).items():
                made = lora if name == "lora" else Contender(method, width, Path(scratch))
                row: dict[str, Any] = {"method": name, "width": width, "layers": made.count}
                row["basis_s"] = made.basis_s
                if not options.only_apply:
                    row |= file_row(made, options.rounds)
                row |= apply_row(made, lora, options.rounds)
                rows.append(row)
                print(row, flush=True)
    report("methods", rows)
