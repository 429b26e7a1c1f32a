"""Makes the task of a job for its base."""

from typing import Any

from adapters_core.base.rotations import border_of
from adapters_core.tokens.ends import end_ids
from registry.jobs.spec import TASKS, Hyperparameters
from trainer.base import LoadedBase
from trainer.errors import InvalidHyperparameter
from trainer.interfaces import Reporter
from trainer.tasks.causal_lm import CausalLM, keeps_positions, keeps_texts_apart
from trainer.tasks.labels import ImageClasses, Regression, TextClasses
from trainer.tasks.task import TextLimits, TrainingTask


def task_of(name: str, base: LoadedBase, hyper: Hyperparameters, report: Reporter) -> TrainingTask:
    """Return the task called `name` for this base.

    Raises:
        InvalidHyperparameter: no such task, or `max_length` is longer than the base's.
    """
    if name not in TASKS:
        message = f"task {name[:80]!r} is not known; give one of {', '.join(TASKS)}"
        raise InvalidHyperparameter(message, "task")
    if name == "image_classification":
        return ImageClasses(base.reader)
    limits = _limits(base, hyper)
    if name == "causal_lm":
        packs = hyper.packing and _packs(base, report)
        ends, keeps = end_ids(base.model, base.reader), _keeps_positions(base)
        return CausalLM(base.reader, limits, packs, ends, keeps)
    kind = Regression if name == "regression" else TextClasses
    config: Any = base.model.config
    return kind(base.reader, limits, config.pad_token_id, base.spec.pads)


def _limits(base: LoadedBase, hyper: Hyperparameters) -> TextLimits:
    config: Any = base.model.config
    vocabulary = config.get_text_config().vocab_size
    cuts = hyper.max_length is not None
    return TextLimits(_max_length(base, hyper), cuts, vocabulary, border_of(base.model))


def _max_length(base: LoadedBase, hyper: Hyperparameters) -> int:
    if hyper.max_length is not None and hyper.max_length > base.max_length:
        raise InvalidHyperparameter(
            f"max_length = {hyper.max_length}, but base {base.spec.name!r} takes at most "
            f"{base.max_length} tokens",
            "max_length",
        )
    return hyper.max_length or base.max_length


def _keeps_positions(base: LoadedBase) -> bool:
    config: Any = base.model.config
    return keeps_positions(base.model, config.get_text_config().vocab_size)


def _packs(base: LoadedBase, report: Reporter) -> bool:
    config: Any = base.model.config
    if keeps_texts_apart(base.model, config.get_text_config().vocab_size):
        return True
    report.event("info", "texts are not packed: this base attends across the texts of one row")
    return False
