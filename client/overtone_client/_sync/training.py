# Made of _async/training.py by `./run reference`: change that file.
"""Training over REST: files, jobs, what they make."""

from collections.abc import Generator, Iterator, Mapping
from typing import Any

import httpx2

from .. import _training_requests as requests
from .. import _training_responses as responses
from .._requests import Call, walk
from .._upload import Progress, Source
from ..training_types import (
    CurvePoint,
    Evaluation,
    JobCheckpoint,
    JobEvent,
    TrainingFile,
    Worker,
)
from .jobs import Job
from .sender import Sender


class Training:
    """Files to train on, and jobs that make adapters; every method raises `OvertoneError`s only."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def upload(self, source: Source, *, on_progress: Progress | None = None) -> TrainingFile:
        """Upload a JSONL or CSV file, or a zip of images; look at `faults` of what comes back.

        Args:
            source: the file.
            on_progress: called with the bytes sent and the bytes in all.
        """
        with requests.opened(source, on_progress) as call:
            return responses.parse(self._sender.send(call), responses.to_file)

    def files(self, *, limit: int | None = None) -> Iterator[TrainingFile]:
        """The uploaded files, the newest first, fetched page by page."""
        return self._sender.walk(walk(requests.FILES, limit), responses.to_file)

    def file(self, id: str) -> TrainingFile:
        """One uploaded file."""
        return responses.parse(self._get(requests.file_path(id)), responses.to_file)

    def file_content(self, id: str) -> bytes:
        """A file's bytes, exactly as they were uploaded; all of them in memory."""
        return (self._get(requests.file_path(id, "content"))).content

    def delete_file(self, id: str) -> None:
        """Delete a file that no unfinished job reads."""
        self._sender.send(Call("DELETE", requests.file_path(id)))

    def create(  # noqa: PLR0913 (the fields of the request)
        self,
        model: str,
        training_file: str,
        *,
        name: str | None = None,
        method: str | None = None,
        config: Mapping[str, Any] | None = None,
        task: str | None = None,
        validation_file: str | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        seed: int | None = None,
        alias: str | None = None,
        publish_if: Mapping[str, str] | None = None,
        move_latest: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Job:
        """File a job; a worker takes it as soon as one is free. `wait` of what comes back waits.

        Args:
            model: the base's name.
            training_file: an uploaded file's id.
            name: of the adapter; a known one gets a new version.
            method: of the adapter, such as `loca`, or `auto`.
            config: fields of adapter_config.json; missing ones are the method's preset.
            task: `causal_lm`, `sequence_classification`, `regression`, `image_classification`.
            validation_file: else a part of the training file is held out.
            hyperparameters: such as `n_epochs`, `batch_size`, `learning_rate_multiplier`.
            seed: of everything random; the server draws one if there is none.
            alias: moved to the new version.
            publish_if: `{"metric": "eval_loss", "better_than": "base"}` or `"alias:prod"`: else
                the alias stays where it is.
            move_latest: `always` or `if_better` than the base on the held-out examples; else
                always where a learning rate is given, and if better where it is the preset's.
            metadata: kept with the job and the version.
        """
        adapter = {"name": name, "method": method, "config": config, "task": task}
        adapter |= {"alias": alias, "publish_if": publish_if, "move_latest": move_latest}
        call = requests.create(
            model,
            training_file,
            adapter,
            validation_file=validation_file,
            hyperparameters=hyperparameters,
            seed=seed,
            metadata=metadata,
        )
        return responses.parse(self._sender.send(call), self._to_job)

    def jobs(self, *, limit: int | None = None) -> Iterator[Job]:
        """The jobs, the newest first, fetched page by page."""
        return self._sender.walk(walk(requests.JOBS, limit), self._to_job)

    def job(self, id: str) -> Job:
        """One job as it stands."""
        return responses.parse(self._get(requests.job_path(id)), self._to_job)

    def cancel(self, id: str) -> Job:
        """End a job for good."""
        return self._post(id, "cancel")

    def pause(self, id: str) -> Job:
        """Hold a job; it writes a checkpoint first."""
        return self._post(id, "pause")

    def resume(self, id: str) -> Job:
        """Resume a paused job from its checkpoint."""
        return self._post(id, "resume")

    def events(self, id: str, *, limit: int | None = None) -> Iterator[JobEvent]:
        """What happened to a job, the newest first, fetched page by page."""
        return self._sender.walk(walk(requests.job_path(id, "events"), limit), responses.to_event)

    def stream(
        self, id: str, *, after: str | None = None, after_step: int | None = None
    ) -> Generator[JobEvent, None, None]:
        """What happens to a job, from the oldest event on, as it comes, to the job's end.

        Args:
            id: the job's.
            after: id of an event of type `message`; only later ones are sent.
            after_step: only numbers of later steps are sent.
        """
        return self._sender.stream(requests.streamed(id, after, after_step), responses.to_event)

    def evaluate(
        self, model: str, file: str, *, max_length: int | None = None
    ) -> Generator[Evaluation, None, None]:
        """How far an evaluation is, as it goes on, and last the evaluation with its `metrics`.

        Args:
            model: the base, or an adapter by any of its names.
            file: an uploaded file's id.
            max_length: tokens that longer texts are cut to.
        """
        call = requests.evaluation(model, file, max_length)
        return self._sender.stream(call, responses.to_evaluation)

    def checkpoints(self, id: str, *, limit: int | None = None) -> Iterator[JobCheckpoint]:
        """The checkpoints that a job can resume from, the newest first."""
        path = requests.job_path(id, "checkpoints")
        return self._sender.walk(walk(path, limit), responses.to_checkpoint)

    def curve(self, id: str) -> Iterator[CurvePoint]:
        """Each step's numbers, from the first on."""
        path = requests.job_path(id, "metrics")
        return self._sender.walk(walk(path, None), responses.to_point)

    def plot(self, id: str) -> bytes:
        """The training curve so far, as a PNG."""
        return (self._get(requests.job_path(id, "plot.png"))).content

    def workers(self) -> list[Worker]:
        """The trainer workers that are alive; without one of a job's base the job waits."""
        return responses.parse(self._get(requests.WORKERS), responses.to_workers)

    def _get(self, path: str) -> httpx2.Response:
        return self._sender.send(Call("GET", path))

    def _post(self, id_: str, move: str) -> Job:
        answer = self._sender.send(Call("POST", requests.job_path(id_, move)))
        return responses.parse(answer, self._to_job)

    def _to_job(self, body: Any) -> Job:
        return Job.of(body, self._sender)
