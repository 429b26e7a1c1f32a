"""Causal language modelling: texts, prompts with completions, and chats.

Every token of a text is learned, of a prompt with completion only the completion, of a chat what
the assistant says (a message's `weight` of 0 leaves it out, as in OpenAI's files). What is learned
ends in the base's end token. A prompt is made of tokens exactly as serving makes them of it; what
follows is made of tokens by itself, as generation would go on.

Short texts are packed to one row: positions begin anew with each, and transformers then keeps
attention within a text. `keeps_texts_apart` finds out whether this base does.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jinja2.exceptions import TemplateError
from torch import Tensor, nn

from registry.training_data import form_of
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
    """

    peft_task: ClassVar[str | None] = "CAUSAL_LM"

    def __init__(self, tokenizer: Any, max_length: int, cuts: bool, packs: bool) -> None:
        self._tokenizer = tokenizer
        self._max_length, self._cuts, self._packs = max_length, cuts, packs
        self._end: int | None = tokenizer.eos_token_id

    def example(self, row: Mapping[str, Any]) -> Example:
        """Return the tokens and what each is to predict."""
        form = form_of(row)
        if form == "chat":
            ids, learned = self._chat(row["messages"])
        elif form == "completion":
            prompt = row["prompt"]
            ids = self._tokens(prompt, special=True) if prompt else self._start()
            answer = self._ended(self._tokens(row["completion"]))
            ids, learned = ids + answer, [False] * len(ids) + [True] * len(answer)
        else:
            ids = self._ended(self._tokens(row["text"], special=True))
            learned = [True] * len(ids)
        return self._fitted(ids, learned)

    def batch(self, examples: Sequence[Example], device: torch.device) -> Batch:
        """Return rows of one or several texts, with positions of their own."""
        longest = max(len(example.ids) for example in examples)
        longest += -longest % _ROW_MULTIPLE
        rows = _packed(examples, longest) if self._packs else [[one] for one in examples]
        ids = torch.full((len(rows), longest), self._end or 0)
        targets = torch.full((len(rows), longest), IGNORED)
        positions = torch.arange(longest).repeat(len(rows), 1)
        for number, row in enumerate(rows):
            start = 0
            for example in row:
                stop = start + len(example.ids)
                ids[number, start:stop] = torch.tensor(example.ids)
                targets[number, start:stop] = torch.tensor(example.targets)
                positions[number, start:] = torch.arange(longest - start)
                start = stop
            positions[number, start:] = torch.arange(longest - start)  # padding sees itself alone
        inputs = {"input_ids": ids.to(device), "position_ids": positions.to(device)}
        count = sum(len(example.ids) for example in examples)
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
        return {
            "eval_loss": score.mean,
            "perplexity": float(torch.tensor(score.mean).exp()),
            "accuracy": right / max(1, score.count),
        }

    def _chat(self, messages: Any) -> tuple[list[int], list[bool]]:
        """Return a chat's tokens by the base's template, and which of them are learned."""
        if not self._tokenizer.chat_template:
            raise ValueError("is a chat, but the base has no chat template; use prompt, completion")
        ids: list[int] = []
        learned: list[bool] = []
        done = ""
        for number, message in enumerate(messages):
            if message["role"] != "assistant" or message.get("weight", 1) == 0:
                continue
            before = self._rendered(messages[:number], asks=True)
            after = self._rendered(messages[: number + 1], asks=False)
            if not (before.startswith(done) and after.startswith(before)):
                raise ValueError(
                    "cannot be cut at its answers: the base's chat template writes a message "
                    "otherwise once others follow; give one answer a line, or prompt and completion"
                )
            asked, answer = self._tokens(before[len(done) :]), self._tokens(after[len(before) :])
            answer = answer if self._end in answer[-2:] else self._ended(answer)
            ids += asked + answer
            learned += [False] * len(asked) + [True] * len(answer)
            done = after
        if not any(learned):
            raise ValueError("has no message of the role assistant to learn from")
        return ids, learned

    def _rendered(self, messages: Sequence[Mapping[str, Any]], asks: bool) -> str:
        plain = [{"role": m["role"], "content": m["content"]} for m in messages]
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    plain, tokenize=False, add_generation_prompt=asks
                )
            )
        except (TemplateError, ValueError, TypeError) as error:
            raise ValueError(f"is refused by the base's chat template: {error}") from error

    def _tokens(self, text: str, special: bool = False) -> list[int]:
        found = self._tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
        return list(found)

    def _start(self) -> list[int]:
        """Return what serving would make of an empty prompt: something that comes before."""
        start = self._tokenizer.bos_token_id
        start = self._end if start is None else start
        return [] if start is None else [start]

    def _ended(self, ids: list[int]) -> list[int]:
        return ids if self._end is None or ids[-1:] == [self._end] else [*ids, self._end]

    def _fitted(self, ids: list[int], learned: list[bool]) -> Example:
        """Return the example: place t predicts token t + 1."""
        num_cut = max(0, len(ids) - self._max_length)
        if num_cut and not self._cuts:
            raise ValueError(
                f"has {len(ids)} tokens, the base takes {self._max_length}; shorten it, or set "
                "max_length to cut"
            )
        ids, learned = ids[: self._max_length], learned[: self._max_length]
        targets = [ids[t] if learned[t] else IGNORED for t in range(1, len(ids))] + [IGNORED]
        if all(target == IGNORED for target in targets):
            what = "nothing is left to learn after its first" if num_cut else "it has only"
            raise ValueError(f"is of no use: {what} {len(ids)} tokens (max_length)")
        return Example(ids, targets, num_cut=num_cut)


def _packed(examples: Sequence[Example], longest: int) -> list[list[Example]]:
    """Return the examples in rows of at most `longest` tokens, long ones first."""
    order = sorted(range(len(examples)), key=lambda i: (-len(examples[i].ids), i))
    rows: list[list[Example]] = []
    left: list[int] = []
    for index in order:
        size = len(examples[index].ids)
        row = next((r for r, room in enumerate(left) if room >= size), len(rows))
        if row == len(rows):
            rows.append([])
            left.append(longest)
        rows[row].append(examples[index])
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
