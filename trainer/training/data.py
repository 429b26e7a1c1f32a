"""A job's examples: opened, all checked, split by the seed, read one by one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from registry.examples.lines import Rows
from registry.examples.rows import rows_of
from registry.jobs.samples import Source
from registry.training_data.lines import Unreadable
from trainer.errors import Fault, InvalidTrainingFile
from trainer.interfaces import JobFiles
from trainer.tasks.task import Example, Question, TrainingTask
from trainer.training.data_facts import Facts, checked, digest_of, keep_facts, known_facts

#: Without a validation file one in so many examples is held out, at most `MAX_HELD_OUT`.
HELD_OUT_PART = 10
#: Examples of one evaluation; of a longer file, as many are drawn by the seed.
MAX_HELD_OUT = 2000
#: Examples among which the prompts of samples are looked for.
_LOOKED_AT = 32


class Examples:
    """Some records of a file, as examples of the task."""

    def __init__(
        self, rows: Rows, ids: Sequence[int] | Tensor, task: TrainingTask, param: Source
    ) -> None:
        self._rows, self._ids, self._task, self._param = rows, ids, task, param

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Example:
        number = int(self._ids[index])
        try:
            return self._task.example(self._rows.row(number))
        except ValueError as error:
            fault = Fault(self._rows.line(number), str(error))
            raise InvalidTrainingFile([fault], self._param) from error

    @property
    def param(self) -> Source:
        """Return the job's field that names the file."""
        return self._param

    def questions(self, count: int) -> list[Question]:
        """Return what samples ask: the first `count` examples that have a prompt."""
        rows = (self._rows.row(int(number)) for number in self._ids[:_LOOKED_AT])
        asked = (self._task.question(row) for row in rows)
        return list(islice((one for one in asked if one is not None), count))

    def batches(self, size: int) -> Iterator[list[Example]]:
        """Yield the examples in order."""
        for start in range(0, len(self), size):
            yield [self[index] for index in range(start, min(start + size, len(self)))]


@dataclass(frozen=True)
class Data:
    """Training and held-out examples, and their facts."""

    train: Examples
    held_out: Examples
    facts: Facts


def open_data(
    files: JobFiles,
    task: TrainingTask,
    seed: int,
    known: Path,
    still_wanted: Callable[[], None] = lambda: None,
) -> Data:
    """Return the examples of a job, every one of them checked.

    Args:
        files: of the job.
        task: makes examples of records.
        seed: draws the held-out examples, also of a long validation file.
        known: file of the facts, with which a resumed job skips the checks.
        still_wanted: called now and then; an exception of it ends the checks.

    Raises:
        InvalidTrainingFile: with the first ten faults and their lines.
    """
    train = open_rows(files.training, "training_file")
    held = open_rows(files.validation, "validation_file") if files.validation else None
    digest = digest_of(files)
    train_ids, held_ids = _split(len(train), len(held) if held else None, seed)
    held_rows = held or train
    held_param: Source = "validation_file" if held else "training_file"
    facts = known_facts(known, digest)
    if facts is None:
        found = checked(train, task, "training_file", still_wanted)
        if held is not None:
            checked(held, task, "validation_file", still_wanted, found.labels)
        labels = task.labels_of(frozenset(found.labels))
        facts = Facts(digest, len(train_ids), len(held_ids), labels=labels, **found.counts)
        keep_facts(known, facts)
    task.use_labels(facts.labels)
    return Data(
        Examples(train, train_ids, task, "training_file"),
        Examples(held_rows, held_ids, task, held_param),
        facts,
    )


def open_rows(path: Path, param: str = "training_file") -> Rows:
    """Return the records of a file.

    Raises:
        InvalidTrainingFile: it cannot be read at all, or is empty.
    """
    try:
        rows = rows_of(path)
    except Unreadable as error:
        raise InvalidTrainingFile([Fault(error.line, str(error))], param) from error
    if not len(rows):
        raise InvalidTrainingFile([Fault(0, "the file holds no example")], param)
    return rows


def _split(
    num_train: int, num_held: int | None, seed: int
) -> tuple[Sequence[int] | Tensor, Tensor]:
    """Return the numbers of the training and of the held-out examples."""
    generator = torch.Generator().manual_seed(seed)
    if num_held is not None:
        held = torch.randperm(num_held, generator=generator)[:MAX_HELD_OUT]
        return range(num_train), held.sort().values
    if num_train < 2:
        message = "the file has one example; at least 2 are needed, or a validation_file"
        raise InvalidTrainingFile([Fault(0, message)], "training_file")
    order = torch.randperm(num_train, generator=generator)
    count = min(MAX_HELD_OUT, max(1, num_train // HELD_OUT_PART))
    return order[count:].sort().values, order[:count].sort().values
