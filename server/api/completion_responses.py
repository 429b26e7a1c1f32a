"""Answers in OpenAI's shapes, whole and in pieces."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from server.api.answerer import Answerer
from server.api.generation import Choice, Delta
from server.api.logprobs import chat_logprobs, completion_logprobs
from server.api.message_shapes import message_parts, whole_message
from server.generation.detokenizer import Text

Json = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What all answers to one request have in common.

    Args:
        is_chat: chat completions, not completions.
        with_logprobs: log-probabilities were asked for.
        with_ids: `token_ids` were asked for.
        with_usage: of a stream: its last event is to have the usage, as OpenAI's has.
    """

    answerer: Answerer
    text: Text
    is_chat: bool
    with_logprobs: bool
    with_ids: bool
    with_usage: bool = False
    created: int = field(default_factory=lambda: int(time.time()))
    key: str = field(default_factory=lambda: uuid.uuid4().hex)

    def whole(self, choices: Sequence[Choice], totals: Json, mode: str | None) -> Json:
        """Return the body of an answer that is not streamed."""
        kind = "chat.completion" if self.is_chat else "text_completion"
        body = self._frame(kind, mode)
        body["choices"] = [self._whole_choice(i, one) for i, one in enumerate(choices)]
        body["usage"] = totals
        return body

    def pieces(self, delta: Delta, mode: str | None, is_first: bool) -> list[Json]:
        """Return the chunks of one delta; a chat's first one carries the role.

        Clients add up the usage of all chunks: only the last one (`closing`) has it, the others
        have null beside it.
        """
        kind = "chat.completion.chunk" if self.is_chat else "text_completion"
        choice = self._choice(delta.choice, delta)
        if self.is_chat:
            text = [{"content": delta.text}]
            parts = text if delta.message is None else message_parts(delta.message)
            choices = self._chunks(choice, parts, is_first)
        else:
            choices = [choice | {"text": delta.text}]
        usage = {"usage": None} if self.with_usage else {}
        return [self._frame(kind, mode) | {"choices": [one]} | usage for one in choices]

    def _chunks(self, choice: Json, parts: list[Json], is_first: bool) -> list[Json]:
        """Return a choice's chunks, one for each part of its message.

        The first has what there is of the tokens; one behind calls says why the choice has ended,
        since clients take a call for whole only when another chunk follows.
        """
        reason = choice["finish_reason"]
        if is_first:
            parts = [{"role": "assistant"} | (parts[0] if parts else {"content": None}), *parts[1:]]
        if not parts and (reason or self.with_logprobs or self.with_ids):
            parts = [{}]
        if reason and any("tool_calls" in part for part in parts):
            parts = [*parts, {}]
        bare = {"index": choice["index"], "finish_reason": None, "logprobs": None}
        chunks = [choice if i == 0 else dict(bare) for i in range(len(parts))]
        choice["finish_reason"] = None
        for chunk, part in zip(chunks, parts, strict=True):
            chunk["delta"] = part
        if chunks:
            chunks[-1]["finish_reason"] = reason
        return chunks

    def closing(self, totals: Json, mode: str | None) -> Json:
        """Return the last chunk, which has the usage and no choice."""
        kind = "chat.completion.chunk" if self.is_chat else "text_completion"
        return self._frame(kind, mode) | {"choices": [], "usage": totals}

    def _frame(self, kind: str, mode: str | None) -> Json:
        prefix = "chatcmpl-" if self.is_chat else "cmpl-"
        return {
            "id": prefix + self.key,
            "object": kind,
            "created": self.created,
            "model": self.answerer.model,
            "overtone": self.answerer.body(mode),
        }

    def _whole_choice(self, index: int, choice: Choice) -> Json:
        said: Json = {"text": choice.text}
        if self.is_chat:
            said = {"message": whole_message(choice.text, choice.message)}
        return self._choice(index, choice) | said | choice.extras

    def _choice(self, index: int, of: Choice | Delta) -> Json:
        choice: Json = {"index": index, "finish_reason": of.finish_reason, "logprobs": None}
        tokens = [one.token for one in of.sampled]
        if self.with_logprobs:
            form = chat_logprobs if self.is_chat else completion_logprobs
            choice["logprobs"] = form(self.text.tokens, of.sampled, of.places)
        if self.with_ids:
            choice["token_ids"] = tokens[of.num_echoed :]
        return choice


def usage(prompts: Sequence[tuple[int, ...]], n: int, generated: int, cached: int) -> Json:
    """Return the token counts; a prompt counts once, however many choices it has.

    `cached` of the prompts' tokens were found computed.
    """
    prompt = sum(map(len, prompts[::n]))
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
