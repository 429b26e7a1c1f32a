"""A version's training job filed again, as its record says, under a name of its own."""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ._sync.client import Client
from ._sync.jobs import Job
from ._uploaded_files import Note
from ._versions import found
from .errors import InvalidArgument, NotFound
from .training_types import TrainingFile

#: What a job's spec calls what a request calls so too.
_SAME = ("task", "seed")


@dataclass(frozen=True)
class Reproduction:
    """What is filed again.

    Args:
        digest: of the version that is to come out.
        spec: of the job that made it.
        files: ids of the training and the validation file.
        name: of the adapter that is made for the comparison, and deleted after it.
    """

    digest: str
    spec: Mapping[str, Any]
    files: tuple[str, str | None]
    name: str

    @classmethod
    def of(
        cls,
        client: Client,
        reference: str,
        data: Path | None,
        validation: Path | None,
        note: Note = lambda file: file,
    ) -> Self:
        """The plan; files that are given are uploaded and noted, others must still be there.

        Raises:
            InvalidArgument: the version was not trained here, its data are not at hand, or other
                files are given than it was trained on.
        """
        adapter, _ = found(client, reference)
        made = adapter.metadata.get("training")
        if not isinstance(made, Mapping) or not isinstance(made.get("spec"), Mapping):
            raise InvalidArgument(f"{reference} was uploaded, not trained here: nothing to repeat")
        spec = made["spec"]
        if validation is not None and not spec.get("validation_file"):
            raise InvalidArgument(f"{reference} was trained without a validation file")
        first = _file(client, spec["training_file"], data, "--data", note)
        second = None
        if spec.get("validation_file"):
            second = _file(client, spec["validation_file"], validation, "--validation", note)
        _check_data(made.get("data_digest"), [f for f in (first, second) if f is not None])
        name = f"{adapter.name[:80]}-again-{secrets.token_hex(3)}"
        files = (first.id, None if second is None else second.id)
        return cls(adapter.digest, spec, files, name)

    def filed(self, client: Client) -> Job:
        """The job, filed."""
        spec = self.spec
        same = {name: spec.get(name) for name in _SAME}
        return client.training.create(
            str(spec["base_name"]),
            self.files[0],
            validation_file=self.files[1],
            name=self.name,
            method=spec.get("method"),
            config=spec.get("method_config"),
            hyperparameters=spec.get("hyperparameters"),
            **same,
        )


def reproduced(client: Client, plan: Reproduction, job: Job, *, keep: bool) -> bool:
    """Whether the job made the same bytes; what it made is deleted again, unless it is kept."""
    if not keep:
        client.delete(plan.name)
    return job.digest == plan.digest


def _file(client: Client, id_: str, given: Path | None, flag: str, note: Note) -> TrainingFile:
    if given is not None:
        return note(client.training.upload(given))
    try:
        return client.training.file(id_)
    except NotFound as error:
        step = f"give the same file again with {flag}"
        raise InvalidArgument(f"the server has file {id_} no more: {step}") from error


def _check_data(expected: Any, files: list[TrainingFile]) -> None:
    """Refuse other data than the version was trained on: sha256 over the files' own."""
    digests = [bytes.fromhex((file.digest or "").removeprefix("sha256:")) for file in files]
    found = "sha256:" + hashlib.sha256(b"".join(digests)).hexdigest()
    if found != expected:
        raise InvalidArgument(f"these are other data: {found}; it was trained on {expected}")
