"""A real base: every method at its preset on a language model of the reader's own, on two texts.

What: `docstrings`, the first line of a docstring from the function's code: held-out loss, ROUGE-L
and exact lines of greedy answers; `subjects`, the subject of a line of documentation: held-out loss
and the share whose likeliest label word is right. Both texts are read from the installed packages,
held-out examples are of other packages (docstrings) or modules (subjects). Steps are of eight
examples, forty for docstrings, eighty for subjects. Beside `main` there are parts with the papers'
pictures on the cheap text, and `presets`, on data apart, with which presets are searched for.
Why: presets are found on small bases; this shows what they reach on one that answers.

    overtone bench training_real --base FOLDER [--dtype bfloat16] [--part main] [--text subjects]
        [--seeds 3] [--only NAME] [--json FILE] [--markdown FILE] [--picture FILE]

Each run is appended to the JSON; those there are kept, so that the program goes on where it was
ended. `--seeds 0` runs none and renders what the JSON has.
"""

import json
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import nn

from adapters_core.gguf.conversion import local_base
from adapters_core.starting import CannotStart
from bench.lib.program import Parser
from bench.studies.answers import asked, label_figures, line_figures
from bench.studies.main import Look, study_main
from bench.studies.real_contenders import PARTS, every
from bench.studies.real_tables import draw, markdown
from bench.studies.real_texts import TEXTS, write_texts
from bench.studies.runs import Contender, Study
from overtone_client import InvalidArgument
from registry.jobs.spec import Hyperparameters
from trainer.base import LoadedBase, load
from trainer.interfaces import JobFiles

_HYPER = Hyperparameters(n_epochs=1, batch_size=8, max_length=192, checkpoint_every_s=1e9)
_SETTINGS = "settings.json"


def prepare(work: Path, most: int | None, base: Path, dtype: str, groups: Sequence[str]) -> None:
    """Write the texts of some groups, and where the base is and how it is loaded.

    Raises:
        InvalidArgument: the base is not there or cannot be converted, or too few texts are.
    """
    folder = _folder_of(base)
    if not (folder / "config.json").is_file():
        raise InvalidArgument(f"--base {base}: no folder of a model, it has no config.json")
    for name, digest in write_texts(work, groups, most).items():
        print(f"{name}: {digest}", flush=True)
    kept = folder.resolve().with_name(f"{folder.name}.bases")
    settings = {"base": str(folder.resolve()), "dtype": dtype, "kept": str(kept)}
    (work / _SETTINGS).write_text(json.dumps(settings))


def _folder_of(base: Path) -> Path:
    """Return the base's folder; a GGUF file is converted beside itself, once."""
    try:
        return Path(local_base(str(base), base.parent, partial(print, flush=True)))
    except CannotStart as error:
        raise InvalidArgument(f"--base {base}: {error.what}; {error.step}") from error


def files_in(work: Path, contender: Contender) -> JobFiles:
    """Return the two files of a contender's text."""
    return JobFiles(work / f"{contender.group}.jsonl", work / f"{contender.group}-held.jsonl")


def real_base(work: Path) -> LoadedBase:
    """Load the base that `prepare` was told of; what is computed from it is kept beside it."""
    settings = json.loads((work / _SETTINGS).read_text())
    kept = Path(settings["kept"])
    return load(settings["base"], "causal_lm", "real", "cpu", settings["dtype"], kept)


def answers(model: nn.Module, base: LoadedBase, files: JobFiles, text: str) -> Mapping[str, float]:
    """Return what the trained model answers to the held-out chats."""
    assert files.validation is not None
    chats = asked(files.validation, base.reader)
    figures = label_figures if text.startswith("subjects") else line_figures
    return figures(model.eval(), base.reader, chats)


def _no_base(work: Path, most: int | None) -> None:
    raise InvalidArgument("--base FOLDER is needed: a causal language model's folder or GGUF file")


STUDY = Study(
    "training_real",
    "causal_lm",
    _HYPER,
    "eval_loss",
    every(),
    _no_base,
    real_base,
    files_in,
    answers,
    ("right", "rouge_l", "exact"),
)


def _parser() -> ArgumentParser:
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--base", type=Path, help="a causal LM's folder or GGUF file")
    parser.add_argument("--part", action="append", choices=sorted(PARTS), help="instead of main")
    parser.add_argument("--text", action="append", choices=sorted(TEXTS), help="of the part, only")
    parser.add_argument("--dtype", default="float32", help="of the base: float32 or bfloat16")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = _parser()
    own, rest = parser.parse_known_args(arguments)
    contenders = [one for part in own.part or ["main"] for one in PARTS[part]]
    contenders = [one for one in contenders if one.group in (own.text or TEXTS)]
    is_run = any(argument.startswith("--run") for argument in rest)  # one of any part
    study = STUDY if is_run else replace(STUDY, contenders=contenders)
    if own.base is not None:
        groups = sorted({one.group for one in contenders})
        study = replace(study, prepare=lambda w, n: prepare(w, n, own.base, own.dtype, groups))
    study_main(study, str(__doc__), arguments, Look(draw, markdown), parser)
