"""Language: the demo's base learns licence texts, and Python's topics in capitals.

What: held-out loss of every method by its preset alone on the two texts of the demo's adapters,
beside LoRA, all weights, and PEFT at its defaults. Each text is cut into pieces of some hundred
characters; what is held out is the excerpt that is shipped with the demo.
Why: this base is shipped with the product; a style is what small adapters are for.

    overtone bench training_demo [--seeds 3] [--only NAME] [--picture FILE] [--json FILE]
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bench.studies.main import study_main
from bench.studies.runs import Contender, Study
from registry.jobs.spec import Hyperparameters
from trainer.base import LoadedBase, load
from trainer.demo_build import demo_data
from trainer.interfaces import JobFiles

STYLES = ("legalese", "shouting")
_PIECE = 300  # characters: of capitals, as many tokens
_PIECES = 640  # of each text, of the training half
_BASE = Path(demo_data.__file__).parent.parent / "demo" / "base"
_PEFT = {"target_modules": ["q_proj", "v_proj"], "task_type": None}
_HYPER = Hyperparameters(n_epochs=2, batch_size=8, checkpoint_every_s=1e9, checkpoint_samples=0)

_EACH = (
    Contender("LoRA r=1", "lora", {"r": 1}),
    Contender("LoRA r=8", "lora", {"r": 8}),
    Contender("FourierFT n=1000", "fourierft", {"n_frequency": 1000}),
    Contender("LoCA n=1000", "loca", {"n_frequency": 1000}),
    Contender("WaveletFT n=1000", "waveletft", {"n_frequency": 1000}),
    Contender("FRoD s=0.01", "frod", {"sparse_rate": 0.01}),
    Contender("CLoRA r=4 K=4", "clora", {"r": 4, "num_spaces": 4}),
    Contender("all weights", "full", hyper={"learning_rate": 1e-3}),
    Contender("PEFT FourierFT n=1000", "peft", _PEFT | {"peft_type": "FOURIERFT"}),
)
CONTENDERS = tuple(
    Contender(f"{style}: {one.what}", one.method, one.config, one.hyper, style)
    for style in STYLES
    for one in _EACH
)


def prepare(work: Path, examples: int | None) -> None:
    """Write the pieces of both texts."""
    for name, split in demo_data.adapter_documents().items():
        train = list(_pieces(split.train))[: examples or _PIECES]
        held = list(_pieces(demo_data.stored_held_out(name)))[:examples]
        _write(work / f"{name}.jsonl", train)
        _write(work / f"{name}-held.jsonl", held)


def _pieces(documents: Iterable[demo_data.Document]) -> Iterator[str]:
    """Yield pieces of about `_PIECE` characters, cut between words."""
    for document in documents:
        words, size = list[str](), 0
        for word in document.text.split(" "):
            words.append(word)
            size += len(word) + 1
            if size >= _PIECE:
                yield " ".join(words)
                words, size = [], 0
        if size > 1:
            yield " ".join(words)


def _write(file: Path, texts: Iterable[str]) -> None:
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def files_in(work: Path, contender: Contender) -> JobFiles:
    """Return the two files of a contender's text."""
    return JobFiles(work / f"{contender.group}.jsonl", work / f"{contender.group}-held.jsonl")


def demo_base(work: Path) -> LoadedBase:
    """Load the demo's base."""
    return load(_BASE, "causal_lm", "demo", device="cpu")


STUDY = Study(
    "training_demo",
    "causal_lm",
    _HYPER,
    "eval_loss",
    CONTENDERS,
    prepare,
    demo_base,
    files_in,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    study_main(STUDY, str(__doc__), arguments)
