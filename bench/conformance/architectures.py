"""Every causal-LM type of the installed transformers: served as PEFT has it, or refused.

What: builds each type tiny and random, makes LoRA and FourierFT on all linears with PEFT, serves
two adapters and the base in one step, in both modes, and holds all logits against PEFT's.
Why: a base must be served correctly or refused by name; this shows which of the two, for each type.
Each type runs in a process of its own with bounded memory and time.

    overtone bench architectures [--only llama,gpt2] [--jobs 2] [--markdown docs/bases.md]
"""

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench.conformance import apart
from bench.conformance.apart import Row
from bench.lib.program import Parser, positive
from bench.lib.timing import machine
from overtone_client import InvalidArgument

os.environ.setdefault("HF_HUB_OFFLINE", "1")

_SECONDS = 120.0
VERDICTS = ("equal", "refused", "wrong", "broken", "not built")


def examined(types: Sequence[str], jobs: int = 1, seconds: float = _SECONDS) -> list[Row]:
    """Return one row for each type, in their order; see apart.py."""
    from bench.conformance import architecture_case  # once, before the processes part

    def examine(name: str) -> Row:
        logging.getLogger("adapters_core").setLevel(logging.ERROR)  # of this process alone
        return asdict(architecture_case.examine(name))

    return apart.examined(types, examine, seconds, jobs)


def markdown(rows: Sequence[Row], where: Row) -> str:
    """Return the page docs/bases.md."""
    counts = Counter(row["verdict"] for row in rows)
    said = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS)
    lines = [
        _HEAD.format(count=len(rows), said=said, where=_where(where)),
        *apart.type_lines(rows),
    ]
    return "\n".join(lines) + "\n"


_HEAD = """# Bases

Which bases are served, found out by a program: `./run bench architectures --markdown docs/bases.md`
builds every causal-LM type of the installed transformers tiny and random ({count} types), makes
LoRA and FourierFT adapters on all linears with PEFT, serves two of them and the base in one step,
factored and merged, in pieces and token by token, and holds all logits against PEFT's (float32, at
most 1e-4 of their norm apart).

**{said}.**
{where}

- *equal*: as PEFT has it. Where "own attention" is said, the base's own attention code runs, one
  text after another: slower, the more texts a step has.
- *refused*: the server does not start, and says so in these words.
- *not built*: no tiny base of that type could be made here (its sizes hang together in another way,
  or it wants inputs beside text); it is held against transformers when it is served, like any base.

A server repeats the essence of it with the real base at its first start
(server/engine/start_check.py), so a type that is not in this table is served rightly or refused,
too. Layers that no adapter may change are listed with their reasons in `overtone.left_out` of
`GET /v1/models/BASE`.

## GGUF files

`--base FILE.gguf` serves a model in llama.cpp's format: `serve`, `worker`, `doctor`, `convert` and
`inspect` take one wherever they take a folder, with the extra `gguf` (`./run` installs it).
transformers reads it (llama, mistral, qwen2, qwen3, their mixtures, phi3, gemma2 to gemma4, falcon,
gpt2, starcoder2, stablelm and others); what it does not read is refused with the reason.

The first start converts the file into `gguf/` in the data folder: weights as safetensors, config,
tokenizer, chat template. Later starts find it there. Its name is the file's SHA-256, so the same
file is one base whatever it is called; the digest is computed once and kept with the file's size
and time of change. Remove a folder in `gguf/` to convert anew.

- **Nothing is lost.** Weights are kept in the smallest of bfloat16, float16 and float32 that holds
  every number exactly: an unquantised file's own type, float32 for a quantised one (a weight of Q4
  is a float16 times an integer plus another float16, which bfloat16 would round once more). It
  takes four bytes a weight on the disk then, and computes as quickly as any other base: quantised
  weights save no memory here.
- **Identity.** The fingerprint is that of the converted weights, so servers, workers and adapters
  agree wherever each has converted the file. Requests call the base by the file's name without
  `.gguf`, if `--base-name` does not say otherwise.
- **Refused before anything is loaded**: a file of another format, one that is cut off, a part of
  several (llama.cpp joins them), an adapter or a projector, one without a tokenizer, a disk without
  room for the weights.
- A file without a chat template continues texts; its chats are refused.
"""


def _where(where: Row) -> str:
    from importlib.metadata import version

    names = ("transformers", "peft", "torch")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return f"{versions}; commit {where['commit']}, {where['date']}."


def _chosen(text: str | None) -> list[str]:
    from bench.conformance.tiny_bases import causal_types

    known = causal_types()
    if text is None:
        return known
    names = text.split(",")
    for name in names:
        if name not in known:
            raise InvalidArgument(f"no causal-LM type {name!r} in the installed transformers")
    return names


def main(arguments: Sequence[str] | None = None) -> None:
    """Examine, write the page and print the JSON line.

    Raises:
        InvalidArgument: a type is not there.
    """
    parser = Parser(prog="overtone bench architectures", description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="types, with commas between")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--seconds", type=positive, default=_SECONDS, help="for one type")
    parser.add_argument("--markdown", type=Path, help="write the page with the table here")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    rows = examined(_chosen(options.only), max(1, options.jobs), options.seconds)
    where = machine()
    if options.markdown is not None:
        options.markdown.write_text(markdown(rows, where))
    counts = dict(Counter(row["verdict"] for row in rows))
    seconds = round(time.perf_counter() - started, 1)
    document = {"bench": "architectures", "machine": where, "counts": counts, "seconds": seconds}
    print(json.dumps(document | {"rows": rows}), flush=True)
