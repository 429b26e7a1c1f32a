"""Adapters whose right answers are known beforehand, from transformers' own `generate`.

Each answer comes from a copy of the base with the adapter's dense delta added to its weights. No
two adapters answer any prompt alike, so that tokens say which adapter they are from.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adapters_core.base.spec import BaseSpec, spec_of, weight_of
from adapters_core.contract.method import Method
from adapters_core.format.read import read_adapter
from adapters_core.format.write import write_adapter
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.methods import FourierFT, LoCA, LoRA, WaveletFT
from live import BASE, CONFIG, FILE, Files
from server_parts import CPU, QUERY_VALUE, Given, given

NEW_TOKENS = 8
#: Two right ways may part where two tokens are as good; contents where they nearly are stay out.
_CLEAR = 2e-3
#: All prompts begin with these two whole pages of tokens. One ends there, two end within the answer
#: of a page's end, so that their callers need another page while they run.
PREFIX = "In the long light of the evening they told one another stories, as".ljust(64)[:64]
PROMPTS = (PREFIX, PREFIX + "A", f"{PREFIX}C: {PREFIX[:23]}", f"{PREFIX}D: {PREFIX}{PREFIX[:58]}")
_METHODS: tuple[Method, ...] = (
    FourierFT(n=40),
    LoRA(r=3),
    LoCA(n=40, scale=30.0),
    WaveletFT(n=40),
    FourierFT(n=30, seed=5),
)
Answers = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Content:
    """An adapter's files, its digest, and its answers to `PROMPTS`."""

    digest: str
    files: Files
    answers: Answers


@dataclass(frozen=True)
class Oracle:
    """All contents there are, and what the base itself answers."""

    contents: tuple[Content, ...]
    base: Answers

    def answers(self) -> dict[str | None, Answers]:
        """Return the right answers by digest; None is the base."""
        return {None: self.base} | {each.digest: each.answers for each in self.contents}


def make_oracle(
    model: nn.Module, encode: Callable[[str], list[int]], folder: Path, count: int
) -> Oracle:
    """Write `count` adapters of several methods, with clear answers, all different."""
    spec = spec_of(model, BASE)
    prompts = [encode(prompt) for prompt in PROMPTS]
    base = _generate(model, prompts)
    assert base is not None, "choose prompts that the base answers clearly"
    contents: list[Content] = []
    seed, seen = 0, set(enumerate(base))
    while len(contents) < count:
        seed += 1
        method = _METHODS[seed % len(_METHODS)]
        adapter = given(spec, method, seed, QUERY_VALUE if seed % 3 else ("",))
        with _added(model, _deltas(adapter, spec)):
            answers = _generate(model, prompts)
        if answers is not None and seen.isdisjoint(enumerate(answers)):
            seen |= set(enumerate(answers))
            contents.append(_written(folder / str(seed), adapter, spec, answers))
    return Oracle(tuple(contents), base)


def _written(place: Path, adapter: Given, spec: BaseSpec, answers: Answers) -> Content:
    write_adapter(place, adapter.methods, adapter.layers, spec)
    files = {name: (place / name).read_bytes() for name in (FILE, CONFIG)}
    digest = read_adapter(place / FILE, files[CONFIG], spec).description.digest
    return Content(digest, files, answers)


def _deltas(adapter: Given, spec: BaseSpec) -> dict[str, Tensor]:
    bases, deltas = BasisCache(CPU), {}
    for target, layer in adapter.layers.items():
        method, shape = adapter.methods[target], spec.targets[target]
        deltas[target] = method.delta(layer, shape, bases.get(method, shape, target, layer))
    return deltas


@contextmanager
def _added(model: nn.Module, deltas: Mapping[str, Tensor]) -> Iterator[None]:
    """Add dense deltas to a model's weights; the old ones are back afterwards."""
    weights = {target: weight_of(model.get_submodule(target)) for target in deltas}
    before = {target: weight.detach().clone() for target, weight in weights.items()}
    with torch.no_grad():
        for target, delta in deltas.items():
            weights[target].add_(delta)
    try:
        yield
    finally:
        with torch.no_grad():
            for target, weight in weights.items():
                weight.copy_(before[target])


def _generate(model: Any, prompts: Sequence[list[int]]) -> Answers | None:
    """Return the greedy answers, or None if any token is nearly as good as another."""
    answers = []
    for prompt in prompts:
        out = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
            do_sample=False,
            eos_token_id=None,
            output_logits=True,
            return_dict_in_generate=True,
        )
        best = torch.cat(out.logits).topk(2).values
        if float((best[:, 0] - best[:, 1]).min()) < _CLEAR:
            return None
        answers.append(tuple(out.sequences[0, len(prompt) :].tolist()))
    return tuple(answers)
