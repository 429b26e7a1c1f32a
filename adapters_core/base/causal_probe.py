"""Which linears of a causal LM may be adapted row by row: found out by running it.

A step holds the rows of several sequences, and an adapter changes those of its own. That is right
where a linear sees one row for each token of the step, in order, or one for each token whose
logits are wanted, in order. Experts that see routed rows, layers that see pooled rows or a table of
positions, and linears whose weights are read without a call are left to the base.
"""

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from adapters_core.base.module_rows import ModuleRows, has_rows
from adapters_core.base.rows_seen import Seen, rows_seen
from adapters_core.base.spec import (
    BaseSpec,
    adaptable,
    changeable,
    input_embedding,
    output_layer,
    shape_of,
    stacks_of,
)
from adapters_core.base.weight_reads import weight_reads
from adapters_core.contract.layer import Shape, Stack

_LOG = logging.getLogger(__name__)
_TOKENS, _SHARED, _SHORT = 24, 9, 17
#: Rows whose logits are asked for; unevenly spaced, so that no stride looks like them.
_KEPT = (3, 10, 16, 23)
_TOLERANCE = 0.05
_NOT_CALLED = (
    "it is not called for every text: an expert that tokens are routed to, or a part for other "
    "inputs than text"
)
_READ = "its weight is read by other code than its own forward pass, past any adapter"
_OTHER_ROWS = (
    "it does not see one row for each token in their order: its rows are routed, pooled, or shared "
    "by all texts"
)


def keeps_rows(model: nn.Module) -> bool:
    """Return whether the model can be told which rows' logits are wanted."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


@dataclass(frozen=True)
class CausalTargets:
    """What running a causal LM shows: fields of `BaseSpec`."""

    targets: Mapping[str, Shape]
    left_out: Mapping[str, str]
    kept: frozenset[str]
    outputs: Mapping[str, Shape]
    lookups: Mapping[str, Shape]
    stacks: Mapping[str, Stack]


#: Given a spec and what runs the model: returns what it shows, or what an earlier run has shown.
Keep = Callable[[BaseSpec, Callable[[], CausalTargets]], CausalTargets]


def with_causal_targets(
    spec: BaseSpec, model: nn.Module, max_length: int, keep: Keep = lambda spec, run: run()
) -> BaseSpec:
    """Return `spec` with the targets that may be adapted row by row; the others are left out.

    Args:
        spec: of the model.
        model: a causal LM, before anything is injected into it.
        max_length: the most tokens that it takes; it is shown at most 24.
        keep: may know the result without running the model.
    """
    found = keep(spec, partial(causal_targets, spec, model, max_length))
    for path, reason in found.left_out.items():
        _LOG.warning("no adapter may change %s: %s", path, reason)
    return replace(spec, **vars(found))


def causal_targets(spec: BaseSpec, model: nn.Module, max_length: int) -> CausalTargets:
    """Return what running a model shows; arguments as for `with_causal_targets`."""
    seen = _Runs.of(model, min(_TOKENS, max_length))
    reasons: dict[str, str] = dict(spec.left_out)
    kept = set()
    for path in spec.targets:
        calls = [run.get(path, []) for run in seen.all]
        if path in seen.read:
            reasons[path] = _READ
        elif not calls[0] or len({len(call) for call in calls}) > 1:
            reasons[path] = _NOT_CALLED
        elif seen.is_kept(path):
            kept.add(path)
        elif not seen.is_in_order(path):
            reasons[path] = _OTHER_ROWS
    good = {path: shape for path, shape in spec.targets.items() if path not in reasons}
    return CausalTargets(
        targets=good,
        left_out=reasons,
        kept=frozenset(kept),
        outputs=_outputs(model, seen),
        lookups=seen.lookups,
        stacks=_stacks(model, seen, good),
    )


def _stacks(model: nn.Module, seen: "_Runs", targets: Iterable[str]) -> dict[str, Stack]:
    """Return the parameters of modules that see a row for each token, once, and hold no target.

    A module runs once for each adapter that changes it; a target in it would see some of the rows.
    """
    found = {}
    for path, stack in stacks_of(model).items():
        module = path.rpartition(".")[0]
        is_by_rows = module in seen.by_rows and seen.is_called_once_in_order(module)
        if is_by_rows and not any(target.startswith(f"{module}.") for target in targets):
            found[path] = stack
    return found


def _outputs(model: nn.Module, seen: "_Runs") -> dict[str, Shape]:
    """Return the output layer if an adapter may change it: it sees the wanted rows alone, once."""
    output = output_layer(model)
    if output is None or any(len(run.get(output[0], [])) != 1 for run in seen.all):
        return {}
    return {output[0]: shape_of(output[1])} if seen.is_kept(output[0]) else {}


@dataclass(frozen=True)
class _Runs:
    """What every linear saw in four forward passes of one text each.

    Args:
        whole: of a text, all logits wanted.
        some: of the same text, the logits of `rows` wanted.
        other: of a text that begins the same and goes on otherwise, as `some`.
        short: of the first text's beginning, as `whole`.
        rows: those whose logits were wanted.
        read: linears with a weight that other code read.
        lookups: the input embedding, if it is looked up once, with the text's tokens.
        by_rows: modules with stacks that take and give one row for each token.
    """

    whole: Seen
    some: Seen
    other: Seen
    short: Seen
    rows: tuple[int, ...]
    read: frozenset[str]
    lookups: Mapping[str, Shape]
    by_rows: frozenset[str]

    @classmethod
    def of(cls, model: nn.Module, length: int) -> "_Runs":
        vocabulary = model.config.get_text_config().vocab_size  # type: ignore[union-attr, operator]
        tokens = [(7 + 31 * i) % vocabulary for i in range(length)]
        other = [(t if i < _SHARED else (t + 5 + i) % vocabulary) for i, t in enumerate(tokens)]
        rows = tuple(row for row in _KEPT if row < length) or (0,)
        options = {"logits_to_keep": torch.tensor(rows)} if keeps_rows(model) else {}
        modules = {path.rpartition(".")[0]: None for path in stacks_of(model)}
        watched = changeable(model) | {path: model.get_submodule(path) for path in modules}
        run = partial(_run, model, watched)
        with weight_reads(list(adaptable(model))) as read:
            whole = run(tokens)
        return cls(
            whole=whole,
            some=run(tokens, options),
            other=run(other, options),
            short=run(tokens[:_SHORT]),
            rows=rows,
            read=frozenset(read),
            lookups=_lookups(model, tokens),
            by_rows=_by_rows(model, modules, tokens),
        )

    @property
    def all(self) -> Sequence[Seen]:
        return self.whole, self.some, self.other, self.short

    def is_kept(self, path: str) -> bool:
        """Return whether a linear sees the rows whose logits are wanted, and they alone."""
        pairs = zip(self.whole[path], self.some[path], strict=True)
        return all(
            len(some) == len(self.rows) != len(whole) and _equal(some, whole[list(self.rows)])
            for whole, some in pairs
        )

    def is_in_order(self, path: str) -> bool:
        """Return whether a linear sees a row for each token, in order."""
        calls = zip(*(run[path] for run in self.all), strict=True)
        return all(self._call_is_in_order(*call) for call in calls)

    def is_called_once_in_order(self, path: str) -> bool:
        """Return whether a module is called once for each text, with a row for each token."""
        return all(len(run.get(path, ())) == 1 for run in self.all) and self.is_in_order(path)

    @staticmethod
    def _call_is_in_order(whole: Tensor, some: Tensor, other: Tensor, short: Tensor) -> bool:
        length = len(whole)
        if not len(some) == len(other) == length or len(short) != min(_SHORT, length):
            return False
        same = (some, whole), (other[:_SHARED], whole[:_SHARED]), (short, whole[:_SHORT])
        # A table that all texts share is the same behind the texts' common beginning, too.
        differs = length <= _SHARED or not _equal(other[_SHARED:], whole[_SHARED:])
        return differs and all(_equal(one, two) for one, two in same)


@torch.inference_mode()
def _by_rows(model: nn.Module, paths: Iterable[str], tokens: Sequence[int]) -> frozenset[str]:
    found: set[str] = set()
    hooks = []

    def watch(path: str) -> None:
        def look(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any], answer: Any) -> None:
            counts = ModuleRows(args, named).counts
            if counts == {len(tokens)} and has_rows(answer, len(tokens)):
                found.add(path)

        module = model.get_submodule(path)
        hooks.append(module.register_forward_hook(look, with_kwargs=True))

    for path in paths:
        watch(path)
    device = next(model.parameters()).device
    try:
        model(input_ids=torch.tensor([tokens], device=device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return frozenset(found)


@torch.inference_mode()
def _lookups(model: nn.Module, tokens: Sequence[int]) -> dict[str, Shape]:
    found = input_embedding(model)
    if found is None:
        return {}
    path, embedding = found
    calls: list[Any] = []
    hook = embedding.register_forward_pre_hook(lambda _, args: calls.append(args))
    ids = torch.tensor([tokens], device=embedding.weight.device)
    try:
        with weight_reads([found]) as read:
            model(input_ids=ids, use_cache=False)
    finally:
        hook.remove()
    if read or len(calls) != 1 or len(calls[0]) != 1 or not torch.equal(calls[0][0], ids):
        return {}
    return {path: Shape(embedding.embedding_dim, embedding.num_embeddings)}


def _equal(one: Tensor, two: Tensor) -> bool:
    return bool((one - two).norm() <= _TOLERANCE * two.norm())


def _run(
    model: nn.Module,
    linears: Mapping[str, nn.Module],
    tokens: Sequence[int],
    options: Mapping[str, Any] | None = None,
) -> Seen:
    device = next(model.parameters()).device
    given = {name: value.to(device) for name, value in (options or {}).items()}
    ids = torch.tensor([tokens], device=device)
    return rows_seen(model, linears, {"input_ids": ids, "use_cache": False, **given})
