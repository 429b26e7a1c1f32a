"""Jobs of OpenAI's fine-tuning API, with the product's own fields beside."""

from typing import Any, Literal

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from registry.jobs.record import State
from registry.jobs.spec import Task
from server.api.bodies.files import ListPage


class JobFault(TypedDict):
    """Why a job failed."""

    code: str
    message: str
    param: str | None


class JobHyperparameters(TypedDict):
    """OpenAI's three."""

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float


class AllHyperparameters(JobHyperparameters):
    """How the job trains; null where the method's preset decides."""

    max_steps: int | None
    gradient_accumulation: int
    learning_rate: float | None
    head_learning_rate: float | None
    location_learning_rate: float | None
    warmup_ratio: float
    schedule: Literal["linear", "cosine", "constant"]
    weight_decay: float
    max_grad_norm: float
    max_length: int | None
    packing: bool
    early_stopping_patience: int | None
    eval_every: int | None
    checkpoint_every_steps: int
    checkpoint_every_s: float
    checkpoint_samples: int
    gradient_checkpointing: bool


class Supervised(TypedDict):
    """`method.supervised`."""

    hyperparameters: AllHyperparameters


class JobMethod(TypedDict):
    """How is learned."""

    type: Literal["supervised"]
    supervised: Supervised


class Gate(TypedDict):
    """When the alias may move to the new version."""

    metric: str
    better_than: str


class JobAdapter(TypedDict):
    """What the job makes.

    Args:
        method: a method's name, or `auto`.
        config: fields of adapter_config.json; what is missing is the method's preset.
        alias: moved to the new version.
    """

    name: str
    method: str
    config: dict[str, Any]
    task: Task
    alias: str | None
    publish_if: Gate | None
    move_latest: Literal["always", "if_better"] | None


class JobProgress(TypedDict):
    """How far a job is; `seconds_left` is null while nothing can be said."""

    step: int
    num_steps: int
    seconds_left: float | None
    trained_tokens: int


class JobResult(TypedDict):
    """What a job made.

    Args:
        reference: `NAME@VERSION`.
        digest: of that version.
        metrics: on held-out examples; `base` among them has the base's.
    """

    reference: str
    digest: str
    metrics: dict[str, Any]


class JobFacts(TypedDict):
    """What OpenAI's job has no field for.

    Args:
        attempts: how often a worker took it.
        worker: that has it, or had it last.
        is_better_than_base: the held-out loss is below the base's; null where it is not known.
    """

    progress: JobProgress
    started_at: int | None
    attempts: int
    worker: str | None
    result: JobResult | None
    is_better_than_base: bool | None


class Job(TypedDict):
    """A training job as it stands.

    Args:
        created_at: seconds since 1970.
        finished_at: seconds since 1970.
        estimated_finish: seconds since 1970, of a running job.
        error: only of a failed job.
        model: the base.
        fine_tuned_model: `NAME@VERSION`, once it has succeeded.
        trained_tokens: once it is over.
    """

    id: str
    object: Literal["fine_tuning.job"]
    created_at: int
    finished_at: int | None
    estimated_finish: int | None
    status: State
    error: JobFault | None
    model: str
    fine_tuned_model: str | None
    training_file: str
    validation_file: str | None
    result_files: list[str]
    trained_tokens: int | None
    seed: int
    metadata: dict[str, Any]
    organization_id: str
    integrations: list[Any]
    hyperparameters: JobHyperparameters
    method: JobMethod
    adapter: JobAdapter
    overtone: JobFacts


class JobPage(ListPage):
    """The caller's jobs, the newest first.

    Args:
        has_more: there is a page after this one: ask with `after` = `last_id`.
    """

    data: list[Job]


class Event(TypedDict):
    """One line of a job's history.

    Args:
        created_at: seconds since 1970.
        type: `message`, or what `data` is about: `metrics` in a stream for one step's numbers.
    """

    id: str
    object: Literal["fine_tuning.job.event"]
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: str
    data: dict[str, Any]


class EventPage(ListPage):
    """What happened to a job, the newest first.

    Args:
        has_more: there is a page after this one: ask with `after` = `last_id`.
    """

    data: list[Event]


class CheckpointMetrics(TypedDict):
    """The step."""

    step: int


class CheckpointSample(TypedDict):
    """A held-out prompt, and what the adapter answered as it was at the checkpoint.

    Args:
        prompt: its last 400 characters, as the base reads it; a classifier's text, or the name of
            an image's file.
        expected: the answer in the file, or the label; its first 400 characters.
        answer: greedy, of at most 48 tokens; the predicted label or number of a classifier.
        finish_reason: `length` at 48 tokens, `time` where the samples' time was over.
    """

    prompt: str
    expected: str
    answer: str
    finish_reason: Literal["stop", "length", "time"]


class CheckpointFacts(TypedDict):
    """What OpenAI's checkpoint has no field for.

    Args:
        samples: in the order of their file, `checkpoint_samples` at most.
        samples_source: the file of the prompts. The job does not learn them: of a training file
            they are among the examples that are held out.
        samples_left_out: why there are none. `off`: the job has `checkpoint_samples` 0. `time`:
            a second and a tenth of the attempt's time would be over. `failed`: see the job's
            events. `no_prompts`: no example has a prompt for which the base has room. `not_made`:
            not yet, not any more (only the latest 100 are kept), or not at all, as when a job is
            paused.
    """

    samples: list[CheckpointSample]
    samples_source: Literal["validation_file", "training_file"] | None
    samples_left_out: Literal["off", "time", "failed", "no_prompts", "not_made"] | None


class Checkpoint(TypedDict):
    """A state that a job can resume from; no version that answers."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"]
    created_at: int
    fine_tuning_job_id: str
    fine_tuned_model_checkpoint: str
    step_number: int
    metrics: CheckpointMetrics
    overtone: CheckpointFacts


class CheckpointPage(ListPage):
    """The checkpoints of a job, the newest first.

    Args:
        has_more: there is a page after this one: ask with `after` = `last_id`.
    """

    data: list[Checkpoint]


@with_config(ConfigDict(extra="allow"))
class CurvePoint(TypedDict):
    """The numbers of one step; each has a field of its own, such as `train_loss`."""

    id: str
    step: int


class CurvePage(ListPage):
    """Each step's numbers, from the first on.

    Args:
        has_more: there is a page after this one: ask with `after` = `last_id`.
    """

    data: list[CurvePoint]
