"""Causal language modelling: texts, prompts with completions, and chats.

All tokens of a text are learned, of a prompt with completion the completion, of a chat the
assistant's messages; registry/examples/lm_texts.py decides which tokens these are.

Short texts are packed into one row: positions restart with each, and transformers then keeps
attention within a text. `keeps_texts_apart` measures whether this base does. Texts beyond the
border of rotations (adapters_core) run apart from the others, and are the batch's first rows.
The head computes only positions at which a row has a token to learn, where the base can be told so:
of a prompt with its completion those are few, and a head over a large vocabulary is most of a small
base's work and memory. `keeps_positions` measures whether it can.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters_core.base.causal_probe import keeps_rows
from registry.examples.lm_texts import LearnedText, LMQuestion, LMTexts
from registry.examples.scores import text_figures
from registry.jobs.samples import Ending
from trainer.tasks.greedy import greedy
from trainer.tasks.task import Batch, Example, Question, Score, TextLimits, TrainingTask

IGNORED = -100
#: Tokens of a sample's answer.
MOST_NEW_TOKENS = 48
#: The length of a row, packed or not, is padded to a multiple of this.
_ROW_MULTIPLE = 8


#: The tokens of one text, and each token's target.
_Text = tuple[Sequence[int], Sequence[int]]


class CausalLM(TrainingTask):
    """Next tokens.

    Args:
        tokenizer: the base's.
        limits: of its texts.
        packs: whether short examples share a row.
        ends: tokens that end an answer in serving, in addition to the tokenizer's.
        keeps_positions: whether the base can be told which positions' logits are wanted.
    """

    peft_task: ClassVar[str | None] = "CAUSAL_LM"

    def __init__(
        self,
        tokenizer: Any,
        limits: TextLimits,
        packs: bool,
        ends: frozenset[int] = frozenset(),
        keeps_positions: bool = False,
    ) -> None:
        self._texts = LMTexts(tokenizer, ends)
        self._limits, self._packs = limits, packs
        self._keeps_positions = keeps_positions

    def example(self, row: Mapping[str, Any]) -> Example:
        """Return the tokens and their targets."""
        texts = self._texts.of(row)
        for text in texts:
            self._limits.check(text.ids)
        most, longest = self._limits.max_length, max(len(text.ids) for text in texts)
        num_cut = sum(max(0, len(text.ids) - most) for text in texts)
        kept = [(text, self._targets(text)) for text in texts]
        kept = [(text, targets) for text, targets in kept if set(targets) != {IGNORED}]
        if not kept:
            size = min(longest, most)
            if num_cut:
                raise ValueError(
                    f"has nothing to learn within its first {size} tokens (max_length); raise "
                    "max_length or shorten the text"
                )
            raise ValueError(f"has nothing to learn: {size} tokens, none of which has a target")
        ids = [text.ids[:most] for text, _ in kept]
        starts = [sum(map(len, ids[:number])) for number in range(len(ids))]
        return Example(
            ids=list(chain.from_iterable(ids)),
            targets=list(chain.from_iterable(targets for _, targets in kept)),
            starts=starts,
            num_cut=num_cut,
            note=next((text.note for text, _ in kept if text.note), ""),
        )

    def _targets(self, text: LearnedText) -> list[int]:
        """Return the target of each kept token: position t predicts token t + 1."""
        most = self._limits.max_length
        size, wanted = min(len(text.ids), most), text.wanted(most)
        return [wanted.get(position, IGNORED) for position in range(size)]

    def batch(self, examples: Sequence[Example], device: torch.device) -> Batch:
        """Return rows of one or several texts, each text with its own positions."""
        short, long = self._by_rotation([one for given in examples for one in _texts_of(given)])
        longest = max(len(ids) for ids, _ in chain(short, long))
        longest += -longest % _ROW_MULTIPLE
        rows = [row for texts in (long, short) for row in self._rows(texts, longest)]
        ids = torch.full((len(rows), longest), self._texts.padding)
        targets = torch.full((len(rows), longest), IGNORED)
        positions = torch.zeros_like(ids)  # each token of padding is a text of its own
        for number, row in enumerate(rows):
            start = 0
            for text, wanted in row:
                stop = start + len(text)
                ids[number, start:stop] = torch.tensor(text)
                targets[number, start:stop] = torch.tensor(wanted)
                positions[number, start:stop] = torch.arange(len(text))
                start = stop
        inputs = {"input_ids": ids.to(device), "position_ids": positions.to(device)}
        count = sum(len(ids) for ids, _ in chain(short, long))
        return Batch(inputs, targets.to(device), count)

    def _by_rotation(self, texts: Sequence[_Text]) -> tuple[list[_Text], list[_Text]]:
        """Return the texts up to where rotations change, and those beyond."""
        border = self._limits.border or self._limits.max_length
        short = [text for text in texts if len(text[0]) <= border]
        return short, [text for text in texts if len(text[0]) > border]

    def _rows(self, texts: Sequence[_Text], longest: int) -> list[list[_Text]]:
        return _packed(texts, longest) if self._packs else [[text] for text in texts]

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the summed loss in nats, and the logits `[N, V]` of the learned tokens."""
        learned = batch.expected != IGNORED
        several = list[Tensor]()
        for rows in self._alike(batch):
            inputs = {name: tensor[rows] for name, tensor in batch.inputs.items()}
            several.append(self._logits(model, inputs, learned[rows]).float())
        logits = torch.cat(several)
        return F.cross_entropy(logits, batch.expected[learned], reduction="sum"), logits

    def _logits(self, model: nn.Module, inputs: Mapping[str, Tensor], learned: Tensor) -> Tensor:
        """Return the logits `[n, V]` of the tokens that `learned` `[B, T]` marks."""
        kept: dict[str, Tensor] = {}
        if self._keeps_positions:
            positions = learned.any(0).nonzero()[:, 0]
            kept, learned = {"logits_to_keep": positions}, learned[:, positions]
        logits: Tensor = model(**inputs, **kept, use_cache=False).logits
        return logits[learned]

    def _alike(self, batch: Batch) -> list[slice]:
        """Return the batch's rows in parts, in each of which all texts have the same rotations."""
        num_rows = len(batch.expected)
        border = self._limits.border
        if border is None:
            return [slice(num_rows)]
        num_long = int((batch.inputs["position_ids"] >= border).any(1).sum())
        return [slice(a, b) for a, b in ((0, num_long), (num_long, num_rows)) if a < b]

    def collect(self, score: Score, loss: Tensor, logits: Tensor, batch: Batch) -> None:
        """Add a batch's loss and its number of correctly predicted tokens."""
        score.loss += float(loss)
        score.count += len(logits)
        right = logits.argmax(-1) == batch.expected[batch.expected != IGNORED]
        score.predicted.append(right.sum().cpu())

    def metrics(self, score: Score) -> dict[str, float]:
        """Return loss, perplexity and the share of correctly predicted tokens."""
        right = int(torch.stack(score.predicted).sum()) if score.predicted else 0
        return text_figures(score.loss, score.count, right)

    def question(self, row: Mapping[str, Any]) -> Question | None:
        """Return a prompt as serving would see it; None if the base has no room for an answer."""
        asked = self._texts.question(row)
        if asked is None or len(asked.ids) >= self._limits.max_length:
            return None
        return Question(asked.prompt, asked.expected, asked)

    def answer(
        self,
        model: nn.Module,
        question: Question,
        device: torch.device,
        goes_on: Callable[[], bool],
    ) -> tuple[str, Ending]:
        """Return the greedy answer, as a caller would be sent it."""
        asked: LMQuestion = question.given
        border, size = self._limits.border, len(asked.ids)
        longest = border if border and size <= border else self._limits.max_length
        most = min(MOST_NEW_TOKENS, max(1, longest - size))
        ids, ending = greedy(model, asked.ids, asked.stops, most, goes_on)
        return self._texts.said(asked, ids), ending


def _texts_of(example: Example) -> list[_Text]:
    """Return the texts of an example; attention stays within each."""
    cuts = pairwise([*example.starts, len(example.ids)])
    return [(example.ids[start:stop], example.targets[start:stop]) for start, stop in cuts]


def _packed(texts: Sequence[_Text], longest: int) -> list[list[_Text]]:
    """Return the texts in rows of at most `longest` tokens, long ones first."""
    order = sorted(range(len(texts)), key=lambda i: (-len(texts[i][0]), i))
    rows: list[list[_Text]] = []
    left: list[int] = []
    for index in order:
        size = len(texts[index][0])
        row = next((r for r, space in enumerate(left) if space >= size), len(rows))
        if row == len(rows):
            rows.append([])
            left.append(longest)
        rows[row].append(texts[index])
        left[row] -= size
    return rows


@torch.no_grad()
def keeps_texts_apart(model: nn.Module, vocabulary: int) -> bool:
    """Return whether the second of two texts in one row gets the same logits as alone."""
    device = next(model.parameters()).device
    first = (5 + 3 * torch.arange(6, device=device)) % vocabulary
    second = (7 + 5 * torch.arange(6, device=device)) % vocabulary
    alone = model(input_ids=second[None], use_cache=False).logits[0]
    positions = torch.arange(6, device=device).repeat(2)[None]
    both = torch.cat([first, second])[None]
    packed = model(input_ids=both, position_ids=positions, use_cache=False).logits[0, 6:]
    tolerance = 1e-3 if alone.dtype == torch.float32 else 0.1
    return bool((packed - alone).norm() <= tolerance * alone.norm())


@torch.no_grad()
def keeps_positions(model: nn.Module, vocabulary: int) -> bool:
    """Return whether the model gives the logits of some positions only, and the same ones."""
    if not keeps_rows(model):
        return False
    device = next(model.parameters()).device
    ids = ((5 + 3 * torch.arange(14, device=device)) % vocabulary).view(2, 7)
    some = torch.tensor([1, 2, 5], device=device)
    whole = model(input_ids=ids, use_cache=False).logits[:, some]
    kept = model(input_ids=ids, logits_to_keep=some, use_cache=False).logits
    tolerance = 1e-5 if whole.dtype == torch.float32 else 0.02
    return bool(kept.shape == whole.shape and (kept - whole).norm() <= tolerance * whole.norm())
