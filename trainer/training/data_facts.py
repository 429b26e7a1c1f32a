"""The facts of a job's examples: found by checking each one, and kept for a resumed job."""

import hashlib
import json
from collections.abc import Callable, Set
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from registry.examples.lines import Rows
from registry.training_data.lines import MAX_FAULTS
from trainer.checkpoint import write_whole
from trainer.errors import Fault, InvalidTrainingFile
from trainer.interfaces import JobFiles
from trainer.tasks.task import Example, TrainingTask


@dataclass(frozen=True)
class Facts:
    """The counts and labels of all examples.

    Args:
        digest: `sha256:…` over the files' bytes.
        num_train, num_held_out: examples.
        num_tokens: of the training examples after cuts; images count as one each.
        num_trained_tokens: of these, those in the loss.
        num_cut: training examples that were cut at `max_length`.
        num_cut_tokens: tokens that were cut off.
        labels: of a classification, sorted; None for other tasks.
        num_rewritten: training examples with an answer that the base's tokenizer cannot reproduce.
        rewritten: the first of them, and the tokenizer's form of it.
    """

    digest: str
    num_train: int
    num_held_out: int
    num_tokens: int
    num_trained_tokens: int
    num_cut: int
    num_cut_tokens: int
    labels: tuple[str, ...] | None
    num_rewritten: int = 0
    rewritten: str = ""


@dataclass
class Checked:
    """The sums over the checked examples of one file."""

    labels: set[str] = field(default_factory=set)
    counts: dict[str, Any] = field(
        default_factory=lambda: {
            "num_tokens": 0,
            "num_trained_tokens": 0,
            "num_cut": 0,
            "num_cut_tokens": 0,
            "num_rewritten": 0,
            "rewritten": "",
        }
    )

    def add(self, example: Example, line: int) -> None:
        """Add one example."""
        counts = self.counts
        counts["num_tokens"] += example.num_tokens
        counts["num_trained_tokens"] += example.num_trained
        counts["num_cut"] += example.num_cut > 0
        counts["num_cut_tokens"] += example.num_cut
        counts["num_rewritten"] += example.note != ""
        if example.note and not counts["rewritten"]:
            counts["rewritten"] = f"line {line}: {example.note}"
        self.labels |= {example.label} if isinstance(example.label, str) else set()


def checked(
    rows: Rows,
    task: TrainingTask,
    param: str,
    still_wanted: Callable[[], None],
    labels: Set[str] | None = None,
) -> Checked:
    """Check all examples and return their sums.

    Args:
        rows: of the file.
        task: makes examples of records.
        param: the field of error messages.
        still_wanted: called now and then.
        labels: of the training file; None if this is that file.
    """
    faults: list[Fault] = []
    found = Checked()
    for index in range(len(rows)):
        if index % 256 == 0:
            still_wanted()
        try:
            example = task.example(rows.row(index))
            task.check_label(example, labels)
        except ValueError as error:
            faults.append(Fault(rows.line(index), str(error)))
            if len(faults) == MAX_FAULTS:
                break
            continue
        found.add(example, rows.line(index))
    if faults:
        raise InvalidTrainingFile(faults, param)
    return found


def digest_of(files: JobFiles) -> str:
    """Return `sha256:…` over the digests of the job's files."""
    digest = hashlib.sha256()
    for path in (files.training, files.validation):
        if path is not None:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return "sha256:" + digest.hexdigest()


def known_facts(path: Path, digest: str) -> Facts | None:
    """Return the facts of an earlier run over the same bytes."""
    if not path.exists():
        return None
    raw: dict[str, Any] = json.loads(path.read_text())
    labels = raw["labels"]
    facts = Facts(**raw | {"labels": None if labels is None else tuple(labels)})
    return facts if facts.digest == digest else None


def keep_facts(path: Path, facts: Facts) -> None:
    """Write the facts for `known_facts`."""
    write_whole(path, json.dumps(asdict(facts)).encode())
