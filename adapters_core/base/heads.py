"""Heads: modules after a base's body that an adapter replaces as a whole (`modules_to_save`).

A classifier's head belongs to its task. PEFT saves the trained copies beside the coefficients, as
`base_model.model.<path>.<parameter>`. The parameter that gives the labels may have any number of
rows: an adapter's task has labels of its own. All other shapes are the base's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adapters_core.contract.peft_config import PeftConfig
from adapters_core.contract.safetensors_header import TensorEntry
from adapters_core.errors import InvalidAdapter, TooLarge

#: Of one head; ImageNet-21k has 21,843.
MAX_LABELS = 32768
#: What PEFT's task type SEQ_CLS always lists, whether the base has such a module or not.
_ALWAYS_LISTED = frozenset({"classifier", "score"})
#: PEFT's task types, and what a model has where the type alone asks for more than a body.
_TASKS: Mapping[str, str] = {
    "CAUSAL_LM": "",
    "FEATURE_EXTRACTION": "",
    "SEQ_CLS": "a head that gives a sequence its label",
    "TOKEN_CLS": "a head that gives each token a label",
    "QUESTION_ANS": "a head that gives an answer's position in a text",
    "SEQ_2_SEQ_LM": "an encoder beside its decoder",
}


@dataclass(frozen=True)
class HeadSpec:
    """What of a base an adapter may replace.

    Args:
        parameters: name -> shape of every parameter after the base's body.
        label_rows: those among them that have one row per label.
        untrained: those that the base's own files have no values for.
    """

    parameters: Mapping[str, tuple[int, ...]]
    label_rows: frozenset[str]
    untrained: frozenset[str] = frozenset()

    @property
    def num_labels(self) -> int:
        """Return how many labels the base's own head has."""
        return self.parameters[min(self.label_rows)][0]


@dataclass(frozen=True)
class Head:
    """An adapter's own head: values of the parameters it replaces, by name."""

    tensors: Mapping[str, Tensor]
    num_labels: int

    @property
    def size_bytes(self) -> int:
        """Return the bytes of its tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def bytes_of(head: Head | None) -> int:
    """Return the bytes of a head that may not be there."""
    return head.size_bytes if head else 0


def in_host_memory(head: Head | None) -> Head | None:
    """Return the head's tensors as they are, in host memory."""
    if head is None:
        return None
    return Head({name: t.cpu() for name, t in head.tensors.items()}, head.num_labels)


def head_spec_of(model: nn.Module, untrained: Iterable[str] = ()) -> HeadSpec:
    """Return the head of a Hugging Face classifier: all that stands beside its body.

    Args:
        model: a classifier, before anything is injected into it.
        untrained: parameters that were missing from the base's files.

    Raises:
        ValueError: it has no body, or no linear that gives labels.
    """
    body = str(getattr(model, "base_model_prefix", ""))
    if not body or not hasattr(model, body):
        raise ValueError(f"{type(model).__name__} has no body of its own, and so no head")
    parameters = {
        name: tuple(parameter.shape)
        for name, parameter in model.named_parameters()
        if name.partition(".")[0] != body
    }
    linears = [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and path.partition(".")[0] != body
    ]
    if not linears:
        raise ValueError(f"{type(model).__name__} has no linear head")
    rows = frozenset(name for name in parameters if name.rpartition(".")[0] == linears[-1])
    return HeadSpec(parameters, rows, frozenset(untrained) & frozenset(parameters))


def check_task(config: PeftConfig, spec: HeadSpec | None, base_name: str) -> None:
    """Refuse an adapter whose `task_type` is of a model that has what this base does not.

    Raises:
        InvalidAdapter: `param` is `task_type`.
    """
    task = config.raw.get("task_type")
    if task is None:
        return
    if not isinstance(task, str) or task not in _TASKS:
        known = ", ".join(_TASKS)
        message = f"task_type = {str(task)[:80]!r} is not one of {known}, or null"
        raise InvalidAdapter(message, "task_type")
    if not _TASKS[task] or (spec is not None and task == "SEQ_CLS"):
        return
    way = ""
    if task == "SEQ_CLS":
        way = "; serve its base as a classifier (--task classify) and upload it there"
    raise InvalidAdapter(
        f"task_type = {task!r}: the adapter was trained on a model with {_TASKS[task]}, which "
        f"base {base_name!r} as it is served here does not have{way}",
        "task_type",
    )


def saved_parameters(config: PeftConfig, spec: HeadSpec) -> tuple[str, ...]:
    """Return the names of the head's parameters that the config's `modules_to_save` selects.

    PEFT's rule: a module is saved if its path ends with one of the names.

    Raises:
        InvalidAdapter: the field is malformed, or selects nothing of the head.
    """
    field = "modules_to_save"
    listed = config.raw.get(field) or []
    if not isinstance(listed, list) or not all(isinstance(n, str) and n for n in listed):
        raise InvalidAdapter(f"{field} is not a list of names", field)
    for name in listed:
        if name not in _ALWAYS_LISTED and not any(_is_in(p, [name]) for p in spec.parameters):
            known = sorted({parameter.rpartition(".")[0] for parameter in spec.parameters})
            raise InvalidAdapter(
                f"{field} names {name[:80]!r}, which is no part of this base's head; "
                f"the head has {', '.join(known)}",
                field,
            )
    return tuple(name for name in spec.parameters if _is_in(name, listed))


def _is_in(parameter: str, listed: Iterable[str]) -> bool:
    """Return whether a module that holds the parameter ends with one of the names."""
    parts = parameter.split(".")[:-1]
    paths = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return any(path.endswith(name) for path in paths for name in listed)


def check_head(
    entries: Mapping[str, TensorEntry], saved: Iterable[str], spec: HeadSpec, prefix: str
) -> int:
    """Hold a file's head against the base's and return its number of labels.

    Args:
        entries: parameter name -> what the file's header says of it.
        saved: the parameters that the config says are there.
        spec: the base's head.
        prefix: of the file's keys, for messages.

    Raises:
        InvalidAdapter: a parameter is missing or has another shape; names it, found and expected.
        TooLarge: too many labels.
    """
    saved = frozenset(saved)
    for name in sorted(spec.untrained - saved):
        message = f"{prefix}{name} is missing: the base has no values for it (modules_to_save)"
        raise InvalidAdapter(message, prefix + name)
    counts = set()
    for name in sorted(saved):
        entry, shape = entries.get(name), spec.parameters[name]
        shown: list[object] = list(shape)
        if name in spec.label_rows:
            shown[0] = "labels"
        if entry is None:
            raise InvalidAdapter(f"{prefix}{name} is missing; expected {shown}", prefix + name)
        got = entry.shape
        free = 1 if name in spec.label_rows else 0
        if len(got) != len(shape) or got[free:] != shape[free:]:
            message = f"{prefix}{name} has shape {list(got)}, expected {shown} for this base"
            raise InvalidAdapter(message, prefix + name)
        if not entry.dtype.is_floating_point:
            raise InvalidAdapter(f"{prefix}{name} has dtype {entry.dtype}", prefix + name)
        counts |= {got[0]} if free else set()
    counts |= {spec.num_labels} if spec.label_rows - saved else set()
    return _one_count(counts, prefix + min(spec.label_rows))


def _one_count(counts: set[int], param: str) -> int:
    if len(counts) != 1:
        raise InvalidAdapter(f"the head's tensors have {sorted(counts)} labels", param)
    (count,) = counts
    if count > MAX_LABELS:
        raise TooLarge(f"the head has {count} labels; at most {MAX_LABELS} are taken", param)
    return count


def labels_in(config: PeftConfig, num_labels: int) -> list[str] | None:
    """Return the labels that the config itself names as `id2label`; None if it names none.

    PEFT writes none; whoever knows them may add the field, as Hugging Face's config.json has it.

    Raises:
        InvalidAdapter: they are not `num_labels` texts, counted from 0.
    """
    given = config.raw.get("id2label")
    if not given:
        return None
    expected = [str(i) for i in range(num_labels)]
    good = isinstance(given, dict) and all(isinstance(label, str) for label in given.values())
    if not good or sorted(given) != sorted(expected):
        message = f"id2label does not name the labels 0 to {num_labels - 1}, each by a text"
        raise InvalidAdapter(message, "id2label")
    return [given[number] for number in expected]


@torch.no_grad()
def clear_untrained(model: nn.Module, names: Iterable[str]) -> None:
    """Set parameters that a base's files have no values for to zero.

    They come out of a random generator otherwise, and the base's fingerprint would be another one
    at every start.
    """
    for name in names:
        model.get_parameter(name).zero_()
