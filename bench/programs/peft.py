"""Compared with PEFT, the usual alternative: the same files, the same answers.

What: (1) 32 requests with 32 adapters: this engine from files to tokens, against PEFT one request
after the other, unmerged (`set_adapter` + `generate`, adapters loaded beforehand) and with
load, merge, generate, unmerge; (2) a cold file to merged weights of all targets, and to its first
factored use, against PEFT's `load_adapter` + `merge_adapter`.
PEFT's requests are independent of each other, so a few of the 32 are timed and scaled. (3) The same
merge against adding matrices of that size to others, which is the traffic that no merge can avoid.

    overtone bench peft [--rounds 5] [--width 1024] [--layers 8] [--new 64]
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from adapters_core.layers.merge import materialise
from adapters_core.layers.merge_threads import MergeThreads
from adapters_core.methods import FourierFT
from bench.lib.bases import llama, prompt_of, targets_of, write_many
from bench.lib.loop import PROMPT, EngineOfBase, Leases, Packer, read, run_to_end
from bench.lib.program import Parser
from bench.lib.timing import interleaved, report

_REQUESTS, _PEFT_SAMPLE = 32, 2
_PAGES = 32 * 40


class Ours(EngineOfBase):
    """The engine and what it needs to read adapters."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__(width, layers, _PAGES)
        self._threads = MergeThreads(lambda: True)
        self._merged: dict[str, Tensor] = {}
        self._sums: dict[str, Tensor] = {}

    def merge(self, folder: Path) -> None:
        """A cold file to merged weights, over those of the adapter that was evicted for it.

        No step runs: threads share it, as a server's do.
        """
        adapter = read(folder, self.spec)
        linears = self.injection.linears
        self._merged = materialise(
            adapter.methods, adapter.layers, linears, self.bases, self._merged, self._threads
        )

    def add(self) -> None:
        """Add one matrix to another for all weights that `merge` makes, over earlier sums."""
        for target, delta in self._merged.items():
            golden = self.injection.linears[target].golden()
            out = self._sums.setdefault(target, torch.empty_like(delta))
            torch.add(golden, delta, out=out)

    def packer(self) -> Packer:
        """Return what makes slots of files, in a bank of its own."""
        return Packer(self.spec, self.bases)

    def serve(self, folders: list[Path], new: int) -> None:
        """All requests at once, from files to their last tokens."""
        packer = self.packer()
        leases: Leases = [packer.from_file(folder) for folder in folders]
        run_to_end(self.engine, leases, _PAGES, new)


class Theirs:
    """PEFT over the same base."""

    def __init__(self, width: int, layers: int, folders: list[Path]) -> None:
        self.model = PeftModel.from_pretrained(llama(width, layers), folders[0], "a0").eval()
        for i in range(1, _PEFT_SAMPLE):
            self.model.load_adapter(folders[i], f"a{i}")

    def _generate(self, number: int, new: int) -> None:
        ids = torch.tensor([prompt_of(number, PROMPT)])
        with torch.inference_mode():
            self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new,
                min_new_tokens=new,
                do_sample=False,
            )

    def unmerged(self, new: int) -> None:
        """Requests one after the other, adapters loaded beforehand."""
        for i in range(_PEFT_SAMPLE):
            self.model.set_adapter(f"a{i}")
            self._generate(i, new)

    def merge(self, folder: Path) -> None:
        """Load a file and merge it; then undo both, untimed by nature of PEFT's API."""
        self.model.load_adapter(folder, "cold")
        self.model.set_adapter("cold")
        self.model.merge_adapter(["cold"])

    def forget(self) -> None:
        """Undo `merge`."""
        self.model.unmerge_adapter()
        self.model.delete_adapter("cold")
        self.model.set_adapter("a0")

    def merged(self, folders: list[Path], new: int) -> None:
        """Requests one after the other, each loaded, merged and forgotten."""
        for i in range(_PEFT_SAMPLE):
            self.merge(folders[i])
            self._generate(i, new)
            self.forget()


def request_rows(
    ours: Ours, theirs: Theirs, folders: list[Path], new: int, rounds: int
) -> list[dict[str, Any]]:
    """Return tokens/s of 32 requests beside PEFT's two ways."""
    contenders: dict[str, Callable[[], object]] = {
        "ours": lambda: ours.serve(folders, new),
        "unmerged": lambda: theirs.unmerged(new),
        "merged": lambda: theirs.merged(folders, new),
    }
    seconds = interleaved(contenders, rounds)
    speed = _REQUESTS * new / seconds["ours"]
    rows = []
    for way in ("unmerged", "merged"):
        other = _PEFT_SAMPLE * new / seconds[way]
        name = f"32 requests, 32 adapters, against PEFT {way}"
        rows.append({"what": name, "tokens_s": speed, "peft": other, "ratio": speed / other})
    return rows


def _rest() -> None:
    """Let the threads of torch's last operation fall asleep: they look for work for milliseconds.

    A server that merges on all cores has computed nothing just before.
    """
    time.sleep(0.02)


def load_rows(ours: Ours, theirs: Theirs, folders: list[Path], rounds: int) -> list[dict[str, Any]]:
    """Return cold file -> merged and -> factored beside PEFT's load + merge and a plain addition.

    The three of ours are over in milliseconds, so they have rounds of their own, more of them.
    """
    packer = ours.packer()
    packer.from_file(folders[0])

    def factored() -> None:
        entry = packer.from_file(folders[1])
        entry.payload.bank.remove(entry.payload.slot)

    quick: dict[str, Callable[[], object]] = {
        "before merge": _rest,
        "merge": lambda: ours.merge(folders[1]),
        "before add": _rest,
        "add": ours.add,
        "before factored": _rest,
        "factored": factored,
    }
    slow = {"peft": lambda: theirs.merge(folders[1]), "forget": theirs.forget}
    seconds = interleaved(quick | slow, rounds)
    more = interleaved({k: run for k, run in quick.items() if "factored" not in k}, 3 * rounds)
    rows = [
        {
            "what": f"cold file to {way}, against PEFT load + merge",
            "ms": seconds[key] * 1e3,
            "peft_ms": seconds["peft"] * 1e3,
            "ratio": seconds["peft"] / seconds[key],
        }
        for way, key in (("merged weights", "merge"), ("factored", "factored"))
    ]
    addition = {
        "what": "cold file to merged weights, against adding matrices of that size",
        "ms": more["merge"] * 1e3,
        "add_ms": more["add"] * 1e3,
        "ratio": more["merge"] / more["add"],
    }
    return [*rows, addition]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = Parser(prog="overtone bench peft", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--only-load", action="store_true", help="leave the requests out")
    options = parser.parse_args(arguments)
    ours = Ours(options.width, options.layers)
    targets = targets_of(ours.spec, "qv")
    with tempfile.TemporaryDirectory() as scratch:
        count = _PEFT_SAMPLE if options.only_load else _REQUESTS
        folders = write_many(Path(scratch), FourierFT(1000, 300.0), ours.spec, targets, count)
        theirs = Theirs(options.width, options.layers, folders)
        rows = load_rows(ours, theirs, folders, options.rounds)
        if not options.only_load:
            rows += request_rows(ours, theirs, folders, options.new, options.rounds)
    report("peft", rows)
