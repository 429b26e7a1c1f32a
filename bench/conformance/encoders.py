"""Every classifier and embedder type of the installed transformers: as PEFT has it, or refused.

What: builds each type tiny and random, makes LoRA and FourierFT on all linears with PEFT, serves
two adapters and the base in batches of several lengths, in both modes, and holds all answers
against PEFT's own. Each type runs in a process of its own with bounded memory and time.

    overtone bench encoders [--only bert:texts,vit:images] [--jobs 2] [--markdown docs/encoders.md]
"""

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.conformance import apart
from bench.conformance.apart import Row
from bench.lib.program import Parser, positive
from bench.lib.timing import machine
from overtone_client import InvalidArgument

_SECONDS = 60.0


def examined(names: Sequence[str], seconds: float = _SECONDS, jobs: int = 1) -> list[Row]:
    """Return one row for each type and use, in their order; see apart.py."""
    import torch

    from bench.conformance import encoder_case  # once, before the processes part

    def examine(name: str) -> Row:
        torch.set_num_threads(1)
        return encoder_case.examine_encoder(name)

    return apart.examined(names, examine, seconds, jobs)


_HEAD = """# Bases that classify or embed

What `./run bench encoders --markdown docs/encoders.md` found: {count} types of classifiers of texts
and images and of embedders, tiny and random, with LoRA and FourierFT on all linears made by PEFT.
Two adapters and the base share batches of several lengths, in both modes; every answer is held
against PEFT's own for that input alone (at most 1e-4 of its norm apart, or four times what PEFT's
float32 is from its float64). *Refused* and *not built* as in [bases.md](bases.md).

**{said}.** {processor}, commit {commit}, {date}.
"""


def markdown(rows: Sequence[Row], where: Row) -> str:
    """Return the page docs/encoders.md."""
    counts = Counter(row["verdict"] for row in rows)
    said = ", ".join(f"{number} {verdict}" for verdict, number in sorted(counts.items()))
    head = _HEAD.format(count=len(rows), said=said, **where)
    return "\n".join([head, *apart.type_lines(rows)]) + "\n"


def _chosen(text: str | None) -> list[str]:
    from bench.conformance.encoder_case import encoder_types

    known = encoder_types()
    names = known if text is None else text.split(",")
    for name in names:
        if name not in known:
            raise InvalidArgument(f"no type {name!r}; they are called like {known[0]!r}")
    return names


def main(arguments: Sequence[str] | None = None) -> None:
    """Examine and print the JSON line.

    Raises:
        InvalidArgument: a type is not there.
    """
    parser = Parser(prog="overtone bench encoders", description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="types and uses, with commas between")
    parser.add_argument("--seconds", type=positive, default=_SECONDS, help="for one type")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--markdown", type=Path, help="write the page with the table here")
    options = parser.parse_args(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    rows = examined(_chosen(options.only), options.seconds, max(1, options.jobs))
    where = machine()
    if options.markdown is not None:
        options.markdown.write_text(markdown(rows, where))
    counts = dict(Counter(row["verdict"] for row in rows))
    document = {"bench": "encoders", "machine": where, "counts": counts, "rows": rows}
    print(json.dumps(document), flush=True)
