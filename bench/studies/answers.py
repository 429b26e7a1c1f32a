"""What a trained causal LM answers: its greedy lines beside the true ones, and labels by words.

`with_update` adds an adapter's update to the base's weights, in place, so that transformers' own
generation answers with it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adapters_core.base.spec import weights_of
from adapters_core.format.read import read_adapter
from adapters_core.format.write import CONFIG_NAME, WEIGHTS_NAME
from adapters_core.layers.basis_cache import BasisCache
from overtone_client import InvalidArgument
from registry.examples.lm_texts import LMTexts
from trainer.base import LoadedBase

_BATCH, _MOST_TOKENS = 16, 24


@dataclass(frozen=True)
class Asked:
    """A held-out example: the prompt's tokens, the answer's first token, and the answer."""

    prompt: list[int]
    first: int
    answer: str


@torch.no_grad()
def with_update(base: LoadedBase, folder: Path) -> nn.Module:
    """Return the base's model after adding the update of the adapter in `folder` to its weights."""
    config = (folder / CONFIG_NAME).read_bytes()
    adapter = read_adapter(folder / WEIGHTS_NAME, config, base.spec)
    weights = weights_of(base.model, base.spec, base.bases)
    bases, deltas = BasisCache(base.device, weights), dict[str, Tensor]()
    for path, method in adapter.methods.items():
        shape, layer = base.spec.targets[path], adapter.layers[path]
        deltas[path] = method.delta(layer, shape, bases.get(method, shape, path, layer))
    for path, delta in deltas.items():
        weights.weight(path).add_(delta)
    return base.model


def asked(file: Path, tokenizer: Any) -> list[Asked]:
    """Return a held-out file's chats and completions, with the tokens that training gives them."""
    texts, found = LMTexts(tokenizer, frozenset()), list[Asked]()
    for line in file.read_text().splitlines():
        row = json.loads(line)
        (text,) = texts.of(row)
        start = text.learned.index(True)
        answer = row["messages"][-1]["content"] if "messages" in row else row["completion"]
        found.append(Asked(text.ids[:start], text.ids[start], answer))
    return found


def line_figures(model: nn.Module, tokenizer: Any, chats: Sequence[Asked]) -> dict[str, float]:
    """Return mean ROUGE-L and the share of exact lines of greedy answers, one line each."""
    got = [_line(tokenizer.decode(ids)) for ids in _greedy(model, tokenizer, chats)]
    pairs = [(mine, chat.answer) for mine, chat in zip(got, chats, strict=True)]
    rouge = sum(rouge_l(mine, true) for mine, true in pairs) / len(pairs)
    exact = sum(mine == true for mine, true in pairs) / len(pairs)
    return {"rouge_l": rouge, "exact": exact}


def label_figures(model: nn.Module, tokenizer: Any, chats: Sequence[Asked]) -> dict[str, float]:
    """Return the share of chats whose answer is the likeliest of all answers' first tokens.

    Raises:
        InvalidArgument: two labels begin with the same token.
    """
    labels = {chat.answer: chat.first for chat in chats}
    if len(set(labels.values())) < len(labels):
        raise InvalidArgument(f"of {sorted(labels)} two begin with the same token of this base")
    firsts = torch.tensor(list(labels.values()))
    right = 0
    for some, inputs in _batches(chats, tokenizer):
        with torch.no_grad():
            logits = model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1]
        best = firsts[logits[:, firsts].argmax(-1)].tolist()
        right += sum(mine == chat.first for mine, chat in zip(best, some, strict=True))
    return {"right": right / len(chats)}


def rouge_l(got: str, true: str) -> float:
    """Return F1 of the longest common subsequence of lower-case words (Lin 2004, equation 4)."""
    mine, theirs = got.lower().split(), true.lower().split()
    if not mine or not theirs:
        return 0.0
    before = [0] * (len(theirs) + 1)
    for word in mine:
        row = [0]
        for place, other in enumerate(theirs):
            longer = max(row[-1], before[place + 1])
            row.append(before[place] + 1 if word == other else longer)
        before = row
    return 2 * before[-1] / (len(mine) + len(theirs))


def _line(text: str) -> str:
    return text.strip().partition("\n")[0].strip()


def _greedy(model: nn.Module, tokenizer: Any, chats: Sequence[Asked]) -> Iterator[list[int]]:
    """Yield each answer's tokens up to the end of the turn."""
    end, generating = tokenizer.eos_token_id, getattr(model, "generate")  # noqa: B009
    for some, inputs in _batches(chats, tokenizer):
        with torch.no_grad():
            ids = generating(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=_MOST_TOKENS,
                do_sample=False,
                pad_token_id=end,
            )
        new = ids[:, inputs["input_ids"].shape[1] :].tolist()
        assert len(new) == len(some)
        yield from (row[: row.index(end)] if end in row else row for row in new)


def _batches(
    chats: Sequence[Asked], tokenizer: Any
) -> Iterator[tuple[Sequence[Asked], Mapping[str, Tensor]]]:
    """Yield some chats with their prompts, padded on the left."""
    for start in range(0, len(chats), _BATCH):
        some = chats[start : start + _BATCH]
        longest = max(len(chat.prompt) for chat in some)
        ids = torch.full((len(some), longest), tokenizer.eos_token_id)
        mask = torch.zeros_like(ids)
        for row, chat in enumerate(some):
            ids[row, longest - len(chat.prompt) :] = torch.tensor(chat.prompt)
            mask[row, longest - len(chat.prompt) :] = 1
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        yield some, {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
