"""What a training job is to do: the part of its record that never changes.

Pure: the server checks and stores it, a worker reads it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self, get_args

from registry.common.spaces import OPERATORS, in_space

Task = Literal["causal_lm", "sequence_classification", "regression", "image_classification"]
MoveLatest = Literal["always", "if_better"]
TASKS: tuple[str, ...] = get_args(Task)
AUTO = "auto"
_OF_CLASSES = ("eval_loss", "accuracy", "f1", "matthews")
#: What is measured on the held-out examples, of the new version and of the base.
METRICS: Mapping[Task, tuple[str, ...]] = {
    "causal_lm": ("eval_loss", "perplexity", "accuracy"),
    "sequence_classification": _OF_CLASSES,
    "image_classification": _OF_CLASSES,
    "regression": ("eval_loss", "pearson"),
}
#: PEFT's name of a task; None where it has none.
PEFT_TASKS: Mapping[Task, str | None] = {
    "causal_lm": "CAUSAL_LM",
    "sequence_classification": "SEQ_CLS",
    "regression": "SEQ_CLS",
    "image_classification": None,
}


@dataclass(frozen=True)
class Hyperparameters:
    """How to train. None means: what the method's preset says.

    Args:
        n_epochs: passes over the training file.
        max_steps: ends training earlier, if given.
        batch_size: examples of one optimiser step.
        gradient_accumulation: forward passes that make one such step.
        learning_rate: of the coefficients; absolute, wins over the multiplier.
        learning_rate_multiplier: of the preset's rate.
        head_learning_rate: of heads that are trained beside the coefficients.
        location_learning_rate: of learned positions.
        warmup_ratio: of all steps.
        schedule: of the rate after warm-up.
        weight_decay: of the coefficients.
        max_grad_norm: gradients are clipped to it; 0 does not clip.
        max_length: tokens of an example; longer ones are cut and counted.
        packing: several short texts to one row.
        early_stopping_patience: evaluations without a better loss; None never stops early.
        eval_every: steps between evaluations; None evaluates before and after.
        checkpoint_every_steps, checkpoint_every_s: whichever comes first.
        checkpoint_samples: held-out prompts that are answered at each checkpoint, 0 to 4.
        gradient_checkpointing: less memory, more time.
    """

    n_epochs: int = 3
    max_steps: int | None = None
    batch_size: int = 8
    gradient_accumulation: int = 1
    learning_rate: float | None = None
    learning_rate_multiplier: float = 1.0
    head_learning_rate: float | None = None
    location_learning_rate: float | None = None
    warmup_ratio: float = 0.06
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    max_length: int | None = None
    packing: bool = True
    early_stopping_patience: int | None = None
    eval_every: int | None = None
    checkpoint_every_steps: int = 100
    checkpoint_every_s: float = 60.0
    checkpoint_samples: int = 2
    gradient_checkpointing: bool = False


@dataclass(frozen=True)
class PublishGate:
    """When the new version may be put under the alias: its metric must be better than another's.

    Args:
        metric: such as `eval_loss` or `accuracy`.
        better_than: `base`, or `alias:NAME`.
    """

    metric: str
    better_than: str


@dataclass(frozen=True)
class JobSpec:
    """One training job.

    Args:
        id: `ftjob-` and 24 hex digits.
        name: of the adapter it makes, in `space`.
        base_name, base_fingerprint: of the base it is trained on.
        task: what is learned.
        training_file, validation_file: ids of uploaded files; without the second, a part of the
            first is held out.
        method: a registered method's name, or `auto`.
        method_config: in the words of its adapter_config.json; missing ones are the preset's.
        hyperparameters: how to train.
        seed: of everything random.
        alias: moved to the new version, if `publish_if` allows it.
        publish_if: None moves the alias in any case.
        move_latest: when `latest` moves to the new version; None: always where the job gives the
            coefficients' rate, else if the held-out loss is below the base's.
        created_by: the tenant.
        metadata: the caller's own.
        space: of the tenant's adapters' names.
    """

    id: str
    name: str
    base_name: str
    base_fingerprint: str
    task: Task
    training_file: str
    validation_file: str | None = None
    method: str = "fourierft"
    method_config: dict[str, Any] = field(default_factory=dict)
    hyperparameters: Hyperparameters = field(default_factory=Hyperparameters)
    seed: int = 0
    alias: str | None = None
    publish_if: PublishGate | None = None
    move_latest: MoveLatest | None = None
    created_by: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    space: str = OPERATORS

    @property
    def stored_name(self) -> str:
        """Return how the registry stores the adapter's name."""
        return in_space(self.space, self.name)

    @property
    def gives_rate(self) -> bool:
        """Whether the job says how fast the coefficients learn."""
        hyper = self.hyperparameters
        return hyper.learning_rate is not None or hyper.learning_rate_multiplier != 1.0

    def to_json(self) -> str:
        """Return the spec as JSON, the same text for the same spec."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return the spec that `to_json` wrote; fields of a later program are ignored."""
        given = json.loads(text)
        known = {name: given[name] for name in cls.__dataclass_fields__ if name in given}
        hyper = known.get("hyperparameters") or {}
        fields = Hyperparameters.__dataclass_fields__
        known["hyperparameters"] = Hyperparameters(
            **{k: v for k, v in hyper.items() if k in fields}
        )
        gate = known.get("publish_if")
        known["publish_if"] = PublishGate(**gate) if gate else None
        return cls(**known)
