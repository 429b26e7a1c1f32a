"""Files that were uploaded for one job: without the job they are deleted again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeAlias

from ._sync.client import Client
from .errors import OvertoneError
from .training_types import TrainingFile

Note: TypeAlias = Callable[[TrainingFile], TrainingFile]


@contextmanager
def kept_if_filed(client: Client) -> Iterator[Note]:
    """Give what notes an uploaded file; the noted ones are deleted if the block raises, Ctrl-C too.

    A job that was filed nevertheless, its answer lost on the way, keeps its files: the server
    refuses to delete what an unfinished job reads.
    """
    noted: list[str] = []

    def note(file: TrainingFile) -> TrainingFile:
        noted.append(file.id)
        return file

    try:
        yield note
    except BaseException:
        for id in noted:
            with suppress(OvertoneError):
                client.training.delete_file(id)
        raise
