"""Requests of OpenAI's fine-tuning API, and the product's own part of them, checked at the door.

Every field is known or refused by name. `"auto"` and null mean: as if it were not there.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, StrictBool, model_validator

from registry.jobs.samples import MAX_SAMPLES
from registry.jobs.spec import AUTO, Hyperparameters, MoveLatest, PublishGate, Task
from server.api.request_body import RequestBody
from server.api.validation import unsupported

#: As OpenAI has them; both end in the record of the version that the job makes.
MAX_METADATA = 16
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=MAX_METADATA),
]
#: The record's own words: how a version was made, and what a classifier's labels are called.
RESERVED_METADATA = frozenset({"training", "labels"})

# Strict: true is no number, and "3" none either.
Whole = Annotated[int, Field(ge=1, le=10_000_000, strict=True)]
Few = Annotated[int, Field(ge=1, le=4096, strict=True)]
Rate = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False, strict=True)]


class _Request(RequestBody):
    """Null and `"auto"` are as if not given."""

    keeps_auto: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def defaults_of(cls, name: str) -> list[Any]:
        return [None] if name in cls.keeps_auto else [None, "auto"]


class HyperparametersRequest(_Request):
    """OpenAI's three, and the rest of a job's `Hyperparameters`; missing: the preset's.

    Args:
        n_epochs: passes over the training file; missing: 3.
        batch_size: examples of one optimiser step; missing: 8.
        learning_rate_multiplier: of the preset's rate.
        max_steps: ends training earlier.
        gradient_accumulation: forward passes that make one optimiser step; at most one for each
            example of it.
        learning_rate: of the coefficients; absolute, wins over the multiplier.
        head_learning_rate: of heads that are trained beside the coefficients.
        location_learning_rate: of learned positions.
        warmup_ratio: of all steps.
        schedule: of the rate after warm-up.
        weight_decay: of the coefficients.
        max_grad_norm: gradients are clipped to it; 0 does not clip.
        max_length: tokens of an example; longer ones are cut and counted.
        packing: several short texts to one row.
        early_stopping_patience: evaluations without a better loss; missing: never stops early.
        eval_every: steps between evaluations; missing: before and after training.
        checkpoint_every_steps, checkpoint_every_s: whichever comes first.
        checkpoint_samples: held-out prompts that the adapter answers at each checkpoint; missing:
            2, and 0 for none.
        gradient_checkpointing: less memory, more time.
    """

    n_epochs: Annotated[int, Field(ge=1, le=1000, strict=True)] | None = None
    batch_size: Few | None = None
    learning_rate_multiplier: Rate | None = None
    max_steps: Whole | None = None
    gradient_accumulation: Few | None = None
    learning_rate: Rate | None = None
    head_learning_rate: Rate | None = None
    location_learning_rate: Rate | None = None
    warmup_ratio: Annotated[float, Field(ge=0, le=1, strict=True)] | None = None
    schedule: Literal["linear", "cosine", "constant"] | None = None
    weight_decay: Annotated[float, Field(ge=0, le=10, strict=True)] | None = None
    max_grad_norm: Annotated[float, Field(ge=0, le=1e6, strict=True)] | None = None
    max_length: Annotated[int, Field(ge=2, le=1 << 20, strict=True)] | None = None
    packing: StrictBool | None = None
    early_stopping_patience: Annotated[int, Field(ge=1, le=1000, strict=True)] | None = None
    eval_every: Whole | None = None
    checkpoint_every_steps: Whole | None = None
    checkpoint_every_s: Annotated[float, Field(ge=0, le=1e9, strict=True)] | None = None
    checkpoint_samples: Annotated[int, Field(ge=0, le=MAX_SAMPLES, strict=True)] | None = None
    gradient_checkpointing: StrictBool | None = None

    @model_validator(mode="after")
    def _check_accumulation(self) -> Self:
        chosen = self.chosen()
        if chosen.gradient_accumulation > chosen.batch_size:
            raise ValueError(
                f"gradient_accumulation = {chosen.gradient_accumulation} forward passes for a "
                f"batch_size of {chosen.batch_size}: at most one for each example"
            )
        return self

    def chosen(self) -> Hyperparameters:
        """Return them with the defaults of what was not given."""
        return Hyperparameters(**self.model_dump(exclude_none=True))


class GateRequest(_Request):
    """When the alias may move to the new version.

    Args:
        metric: such as `eval_loss` or `accuracy`.
        better_than: `base`, or `alias:NAME`.
    """

    metric: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    better_than: Annotated[str, Field(pattern=r"^(base|alias:[a-z][a-z0-9_-]{0,31})$")]

    def chosen(self) -> PublishGate:
        """Return the gate as a job keeps it."""
        return PublishGate(self.metric, self.better_than)


class AdapterRequest(_Request):
    """What the job makes: `extra_body={"adapter": {...}}` of OpenAI's client.

    Args:
        method: such as `loca`, or `auto` to let the job find the best.
        config: fields of adapter_config.json; what is missing is the method's preset.
        name: of the adapter; a known one gets a new version. Missing: `suffix`, else a new name.
        task: what to learn; missing: the base's usual one.
        alias: moved to the new version.
        publish_if: when the alias may move; missing: always.
        move_latest: when `latest` moves: always, or if the held-out loss is below the base's.
            Missing: always where the job gives the learning rate, else if better.
    """

    keeps_auto = frozenset({"method"})  # `auto` is a way to choose one

    method: Annotated[str, Field(min_length=1, max_length=64)] = "fourierft"
    config: dict[str, Any] = Field(default_factory=dict)
    name: Annotated[str, Field(max_length=96)] | None = None
    task: Task | None = None
    alias: str | None = None
    publish_if: GateRequest | None = None
    move_latest: MoveLatest | None = None

    @property
    def tries_methods(self) -> bool:
        """Whether the job is to find the method itself."""
        return self.method == AUTO


class SupervisedRequest(_Request):
    """`method.supervised`."""

    hyperparameters: HyperparametersRequest = Field(default_factory=HyperparametersRequest)


class MethodRequest(_Request):
    """OpenAI's `method`: how is learned, not what; `adapter.method` is the kind of adapter."""

    type: Literal["supervised"]
    supervised: SupervisedRequest = Field(default_factory=SupervisedRequest)


class JobRequest(_Request):
    """A training job, in OpenAI's shape.

    Args:
        model: the base's name.
        training_file: id of an uploaded file.
        validation_file: id of one with held-out examples; missing: a part of the training file.
        suffix: OpenAI's place for the adapter's name.
        seed: of everything random; missing: a random one.
        metadata: kept with the job and the version that it makes.
        method: OpenAI's place for hyper-parameters.
        hyperparameters: OpenAI's older place for them.
        integrations: none are supported.
        adapter: what the job makes.
    """

    keeps_auto = frozenset({"model", "suffix"})
    example = {
        "model": "BASE",
        "training_file": "file-…",
        "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3}}},
        "adapter": {"name": "NAME", "method": "fourierft"},
    }

    model: Annotated[str, Field(min_length=1, max_length=256)]
    training_file: Annotated[str, Field(min_length=1, max_length=128)]
    validation_file: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    suffix: Annotated[str, Field(max_length=64)] | None = None
    seed: Annotated[int, Field(ge=0, lt=1 << 63, strict=True)] | None = None
    metadata: Metadata = Field(default_factory=dict)
    method: MethodRequest | None = None
    hyperparameters: HyperparametersRequest | None = None
    integrations: list[Any] = Field(default_factory=list)
    adapter: AdapterRequest = Field(default_factory=AdapterRequest)

    @model_validator(mode="after")
    def _check_integrations(self) -> Self:
        if self.integrations:
            raise unsupported(
                "integrations",
                "integrations are not supported: nothing is sent to other services; "
                "a job's numbers are under its /metrics and its stream of events",
            )
        return self

    @property
    def chosen(self) -> Hyperparameters:
        """Return the hyper-parameters; `hyperparameters` is OpenAI's older place for them."""
        given = self.method.supervised.hyperparameters if self.method else self.hyperparameters
        return (given or HyperparametersRequest()).chosen()
