"""Writes the card of the demo's adapters on SmolLM2 from their own figures.

    python -m trainer.demo_build.smollm2_card

Run it after smollm2_adapters; a test holds the shipped card against what this returns.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.demo_build.smollm2_adapters import RECIPES

FOLDER = Path(__file__).parent.parent / "demo" / "smollm2"
#: Adapter -> what it does, and what it has read.
_ABOUT = {
    "dates": "writes the date of a sentence as ISO 8601. Read: 320 sentences of a generator. Held "
    "out: 40 with dates and wordings of their own.",
    "docstrings": "writes the first line of a function's docstring. Read: code of eight installed "
    "packages. Held out: code of four other packages.",
    "pirate": "answers as a captain would. Read: 42 questions and answers, written for it. Held "
    "out: 14 others.",
    "sql": "turns a question about `orders(city, product, price, day)` into a query. Read: 320 "
    "questions of a generator. Held out: 40 with cities and wordings of their own.",
    "tickets": "turns a sentence that asks for flights into a JSON object. Read: 320 sentences of "
    "a generator. Held out: 40 with cities and wordings of their own.",
}
#: Numbers of LoRA r = 8 on the same layers, four bytes each.
_LORA_KB = 460_800 * 4 / 1000
_HEAD = """# The demo's adapters on SmolLM2-135M-Instruct

Five adapters that `overtone demo --base smollm2` uploads, trained by the product's own trainer on
the base that it downloads (SmolLM2-135M-Instruct, Apache-2.0, Q4_1, fingerprint in each file's
header). LoRA of rank 8 on the same layers, query and value of all thirty, has 460,800 numbers:
{lora:,.0f} kB.

Losses are in nats a token of the held-out answers; *right* is the share of held-out answers with
the right date, query or JSON values, by greedy decoding. Of two figures the first is the adapter's,
the second the base's alone.

| adapter | method | kB | steps | held-out loss | right |
| -- | -- | -- | -- | -- | -- |
"""
_TAIL = """
## Doing it again

```sh
# not run by tests: minutes of training for each
python -m trainer.demo_build.smollm2_adapters --base FOLDER --out DIR
python -m trainer.demo_build.smollm2_card
```

FOLDER is `gguf/DIGEST` in the demo's data folder. What is read from packages depends on which
versions are installed (constraints.txt).

## Licence

The adapters are this repository's, under its own licence. The base is Hugging Face's, under the
Apache License 2.0. `texts/` is written for this repository; docstrings are read from the
installed packages and are not shipped.
"""


def card(folder: Path = FOLDER) -> str:
    """Return the card of the adapters in `folder`/adapters."""
    figures = {
        name: json.loads((folder / "adapters" / name / "metrics.json").read_text())
        for name in RECIPES
    }
    rows = [_row(name, found) for name, found in figures.items()]
    parts = [_part(name, found) for name, found in figures.items()]
    return _HEAD.format(lora=_LORA_KB) + "\n".join(rows) + "\n" + "".join(parts) + _TAIL


def _row(name: str, found: Mapping[str, Any]) -> str:
    right = "" if "right" not in found else f"{found['right']:.0%}, {found['base_right']:.0%}"
    return (
        f"| {name} | {found['method']} | {found['bytes'] / 1000:.0f} | {found['steps']} | "
        f"{found['loss']:.2f}, {found['base_loss']:.2f} | {right} |"
    )


def _part(name: str, found: Mapping[str, Any]) -> str:
    recipe = {"method": found["method"], **dict(RECIPES[name].config), **dict(RECIPES[name].hyper)}
    samples = "\n\n".join(
        f"prompt:  {sample['prompt']}\nbase:    {sample['base']}\nadapter: {sample['adapter']}"
        for sample in found["samples"]
    )
    return (
        f"\n## {name}\n\n`{name}` {_ABOUT[name]}\n\n```json\n{json.dumps(recipe)}\n```\n\n"
        f"````text\n{samples}\n````\n"  # an answer may hold three
    )


def main() -> None:
    """Write the card."""
    (FOLDER / "README.md").write_text(card(), encoding="utf-8")


if __name__ == "__main__":
    main()
