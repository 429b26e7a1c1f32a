"""Causal language modelling: texts, prompts with completions, and chats.

Every token of a text is learned, of a prompt with completion only the completion, of a chat what
the assistant says. `lm_texts.py` says which tokens these are.

Short texts are packed to one row: positions begin anew with each, and transformers then keeps
attention within a text. `keeps_texts_apart` finds out whether this base does.
"""

from collections.abc import Mapping, Sequence
from itertools import chain, pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from registry.examples.lm_texts import LearnedText, LMTexts
from registry.examples.scores import text_figures
from trainer.task import Batch, Example, Score, Task

IGNORED = -100
#: A row of packed texts and padding is padded to a multiple of it.
_ROW_MULTIPLE = 8


class CausalLM(Task):
    """Next tokens.

    Args:
        tokenizer: the base's.
        max_length: the most tokens of an example.
        cuts: whether longer ones are cut; else they are refused.
        packs: whether short examples share a row.
        ends: tokens that end an answer in serving, beside the tokenizer's own.
    """

    peft_task: ClassVar[str | None] = "CAUSAL_LM"

    def __init__(
        self,
        tokenizer: Any,
        max_length: int,
        cuts: bool,
        packs: bool,
        ends: frozenset[int] = frozenset(),
    ) -> None:
        self._texts = LMTexts(tokenizer, ends)
        self._max_length, self._cuts, self._packs = max_length, cuts, packs

    def example(self, row: Mapping[str, Any]) -> Example:
        """Return the tokens and what each is to predict."""
        texts = self._texts.of(row)
        longest = max(len(text.ids) for text in texts)
        if longest > self._max_length and not self._cuts:
            raise ValueError(
                f"has {longest} tokens, the base takes {self._max_length}; shorten it, or set "
                "max_length to cut"
            )
        num_cut = sum(max(0, len(text.ids) - self._max_length) for text in texts)
        kept = [(text, self._targets(text)) for text in texts]
        kept = [(text, targets) for text, targets in kept if set(targets) != {IGNORED}]
        if not kept:
            what = "nothing is left to learn after its first" if num_cut else "it has only"
            size = min(longest, self._max_length)
            raise ValueError(f"is of no use: {what} {size} tokens (max_length)")
        ids = [text.ids[: self._max_length] for text, _ in kept]
        starts = [sum(map(len, ids[:number])) for number in range(len(ids))]
        return Example(
            ids=list(chain.from_iterable(ids)),
            targets=list(chain.from_iterable(targets for _, targets in kept)),
            starts=starts,
            num_cut=num_cut,
            note=next((text.note for text, _ in kept if text.note), ""),
        )

    def _targets(self, text: LearnedText) -> list[int]:
        """Return what each token that is not cut is to predict: place t token t + 1."""
        size, wanted = min(len(text.ids), self._max_length), text.wanted(self._max_length)
        return [wanted.get(place, IGNORED) for place in range(size)]

    def batch(self, examples: Sequence[Example], device: torch.device) -> Batch:
        """Return rows of one or several texts, with positions of their own."""
        texts = [text for example in examples for text in _texts_of(example)]
        longest = max(len(ids) for ids, _ in texts)
        longest += -longest % _ROW_MULTIPLE
        rows = _packed(texts, longest) if self._packs else [[one] for one in texts]
        ids = torch.full((len(rows), longest), self._texts.padding)
        targets = torch.full((len(rows), longest), IGNORED)
        positions = torch.arange(longest).repeat(len(rows), 1)
        for number, row in enumerate(rows):
            start = 0
            for text, wanted in row:
                stop = start + len(text)
                ids[number, start:stop] = torch.tensor(text)
                targets[number, start:stop] = torch.tensor(wanted)
                positions[number, start:] = torch.arange(longest - start)
                start = stop
            positions[number, start:] = torch.arange(longest - start)  # padding sees itself alone
        inputs = {"input_ids": ids.to(device), "position_ids": positions.to(device)}
        count = sum(len(ids) for ids, _ in texts)
        return Batch(inputs, targets.to(device), count)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the summed loss in nats, and the logits `[N, V]` of the learned tokens."""
        logits = model(**batch.inputs, use_cache=False).logits
        learned = batch.expected != IGNORED
        logits = logits[learned].float()
        return F.cross_entropy(logits, batch.expected[learned], reduction="sum"), logits

    def collect(self, score: Score, loss: Tensor, logits: Tensor, batch: Batch) -> None:
        """Take a batch's loss and how many tokens were guessed right."""
        score.loss += float(loss)
        score.count += len(logits)
        right = logits.argmax(-1) == batch.expected[batch.expected != IGNORED]
        score.predicted.append(right.sum().cpu())

    def metrics(self, score: Score) -> dict[str, float]:
        """Return loss, perplexity and the share of tokens guessed right."""
        right = int(torch.stack(score.predicted).sum()) if score.predicted else 0
        return text_figures(score.loss, score.count, right)


#: Tokens of one text, and what each is to predict.
_Text = tuple[Sequence[int], Sequence[int]]


def _texts_of(example: Example) -> list[_Text]:
    """Return the texts of an example, each to be read by itself."""
    cuts = pairwise([*example.starts, len(example.ids)])
    return [(example.ids[start:stop], example.targets[start:stop]) for start, stop in cuts]


def _packed(texts: Sequence[_Text], longest: int) -> list[list[_Text]]:
    """Return the texts in rows of at most `longest` tokens, long ones first."""
    order = sorted(range(len(texts)), key=lambda i: (-len(texts[i][0]), i))
    rows: list[list[_Text]] = []
    left: list[int] = []
    for index in order:
        size = len(texts[index][0])
        row = next((r for r, room in enumerate(left) if room >= size), len(rows))
        if row == len(rows):
            rows.append([])
            left.append(longest)
        rows[row].append(texts[index])
        left[row] -= size
    return rows


@torch.no_grad()
def keeps_texts_apart(model: nn.Module, vocabulary: int) -> bool:
    """Return whether two texts in one row get the logits that each gets alone."""
    device = next(model.parameters()).device
    first = (5 + 3 * torch.arange(6, device=device)) % vocabulary
    second = (7 + 5 * torch.arange(6, device=device)) % vocabulary
    alone = model(input_ids=second[None], use_cache=False).logits[0]
    positions = torch.arange(6, device=device).repeat(2)[None]
    both = torch.cat([first, second])[None]
    packed = model(input_ids=both, position_ids=positions, use_cache=False).logits[0, 6:]
    tolerance = 1e-3 if alone.dtype == torch.float32 else 0.1
    return bool((packed - alone).norm() <= tolerance * alone.norm())
