"""How long a server takes until it is ready: its first start with a base, and later ones.

What: a base of SmolLM2-135M's shape with random weights; a process that only imports what a server
imports and loads the weights; a server's first start on an empty data folder, and its second. Each
in a process of its own, wall and processor seconds, with the phases that its log names.
Why: what a start finds out is kept for the next. Target: the second start takes at most two seconds
more than the imports and the weights alone.

    overtone bench start [--layers 30] [--rounds 3]
"""

import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.utils.logging import disable_progress_bar

from bench.lib.bases import tokenizer
from bench.lib.program import Parser
from bench.lib.servers import served
from bench.lib.timing import report

_TARGET_S = 2.0
_LAYERS = 30
#: Of SmolLM2-135M's config.json.
_SHAPE = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rope_theta": 100000.0,
    "tie_word_embeddings": True,
}
#: Imports what a server does, in the same way, and loads a base as it does.
_ALONE = """
import sys, time
from adapters_core.starting import uncollected_imports
with uncollected_imports():
    import server.process.launch
import torch
from adapters_core.base.loading import load_model
load_model(sys.argv[1], "causal LM", torch.float32)
print(time.process_time())
"""
_PHASE = re.compile(r"start: (.+) took ([0-9.]+) s$", re.MULTILINE)


@dataclass(frozen=True)
class Taken:
    """What one process took.

    Args:
        what: it did.
        seconds: until it was done, or ready.
        processor_s: of all its threads.
        phases: of a server, its seconds by name.
    """

    what: str
    seconds: float
    processor_s: float
    phases: dict[str, float]


def save_base(folder: Path, layers: int) -> Path:
    """Write a random base of SmolLM2-135M's shape, in bfloat16 as that is published."""
    disable_progress_bar()
    torch.manual_seed(0)
    config = LlamaConfig(num_hidden_layers=layers, pad_token_id=0, **_SHAPE)  # type: ignore[arg-type]
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer(config.vocab_size).save_pretrained(folder)
    return folder


def alone(base: Path) -> Taken:
    """Import and load the weights, and nothing else.

    Raises:
        RuntimeError: it fails; the message ends with its output.
    """
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _ALONE, str(base)], capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"the weights cannot be loaded:\n{done.stderr[-2000:]}")
    return Taken("imports and weights alone", seconds, float(done.stdout), {})


def start(what: str, base: Path, data: Path) -> Taken:
    """Start a server, and stop it when it is ready."""
    started = time.perf_counter()
    with served(base, data) as server:
        seconds = time.perf_counter() - started
        used = psutil.Process(server.pid).cpu_times()
        log = (data / "log").read_text()
    phases = {name: float(took) for name, took in _PHASE.findall(log)}
    return Taken(what, seconds, used.user + used.system, phases)


def measure(base: Path, scratch: Path, rounds: int) -> list[dict[str, Any]]:
    """Return a row for each kind: the median of its rounds, with the phases of that round."""
    found: dict[str, list[Taken]] = {}
    alone(base)  # files are read into memory
    for number in range(rounds):
        data = scratch / f"data-{number}"
        round_ = [alone(base), start("first start", base, data), start("second start", base, data)]
        for taken in round_:
            found.setdefault(taken.what, []).append(taken)
    rows = [asdict(_median(taken)) for taken in found.values()]
    for row in rows:
        row["more_s"] = row["seconds"] - rows[0]["seconds"]
    rows[-1]["meets"] = rows[-1]["more_s"] <= _TARGET_S
    return rows


def _median(given: list[Taken]) -> Taken:
    wanted = statistics.median_low(taken.seconds for taken in given)
    return next(taken for taken in given if taken.seconds == wanted)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = Parser(prog="overtone bench start", description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=_LAYERS, help="of the base")
    parser.add_argument("--rounds", type=int, default=3, help="of each kind, in turns")
    options = parser.parse_args(arguments)
    if min(options.layers, options.rounds) < 1:
        parser.error("--layers and --rounds are 1 or more")
    with tempfile.TemporaryDirectory(prefix="overtone-bench-") as scratch:
        base = save_base(Path(scratch) / "base", options.layers)
        rows = measure(base, Path(scratch), options.rounds)
    report("start", rows)


if __name__ == "__main__":
    main()
