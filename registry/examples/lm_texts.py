"""Records of a training file as texts for a causal LM: what is read, and what of it is learned.

A prompt or a chat is made of tokens by the functions with which the server reads requests, and what
an answer's tokens are is `adapters_core.tokens.answers`' rule: learned is what, generated behind
that prompt, is served as the text of the file, and the token at which serving stops.

Of a chat each answer is learned behind the prompt that serving makes of the messages before it.
Where that prompt begins with the tokens of the answers before it, one text holds them all; where
the template writes earlier turns otherwise than they were asked and answered, each answer is a text
of its own. OpenAI's `weight` of 0 leaves an answer out.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from adapters_core.tokens.answers import Answer, AnswerNotWritable, Answers, difference
from adapters_core.tokens.chat_answers import NoSuchAnswer, answer_text, check_answer
from adapters_core.tokens.chats import Chat, ChatTemplate
from adapters_core.tokens.ends import turn_end
from adapters_core.tokens.messages import Message, Tool, plain_messages, plain_tools
from adapters_core.tokens.prompts import ChatRefused, Prompt, prompt_of
from adapters_core.tokens.token_texts import TokenTexts
from adapters_core.tokens.written import written
from registry.training_data.checks import form_of
from registry.training_data.messages import is_learned

#: Tokens of a text without a prompt that stand for one, at most.
_MOST_BEGUN = 64


@dataclass(frozen=True)
class LearnedText:
    """One text.

    Args:
        ids: its tokens.
        learned: of each, whether it is learned.
        note: which answer is served otherwise than the file has it, and how; else empty.
    """

    ids: list[int]
    learned: list[bool]
    note: str = ""

    def wanted(self, max_length: int) -> dict[int, int]:
        """Return place -> the token that is learned behind it, of the first `max_length` tokens."""
        size = min(len(self.ids), max_length)
        return {t - 1: self.ids[t] for t in range(1, size) if self.learned[t]}

    def followed_by(self, other: "LearnedText") -> "LearnedText | None":
        """Return both as one, or None if `other` does not begin as this text."""
        size = len(self.ids)
        if other.ids[:size] != self.ids:
            return None
        return LearnedText(other.ids, self.learned + other.learned[size:], self.note or other.note)


@dataclass(frozen=True)
class LMQuestion:
    """A prompt of a record as serving would see it, and the answer that the record has.

    Args:
        ids: the prompt's tokens.
        prompt: what they say, special tokens included.
        expected: the answer.
        stops: tokens at which serving ends an answer.
        shown: special tokens that a caller is sent as text.
    """

    ids: list[int]
    prompt: str
    expected: str
    stops: frozenset[int]
    shown: frozenset[int] = frozenset()


@dataclass(frozen=True)
class _End:
    """What ends answers of one route: the token that is learned, and all at which serving stops."""

    token: int | None
    stops: frozenset[int]


class LMTexts:
    """Reads records.

    Args:
        tokenizer: the base's.
        ends: tokens that end an answer in serving; the tokenizer's own is one of them.
    """

    def __init__(self, tokenizer: Any, ends: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        own, turn = tokenizer.eos_token_id, turn_end(tokenizer)
        self._end = _End(own, ends | _some(own))
        self._turn_end = _End(
            self._end.token if turn is None else turn, self._end.stops | _some(turn)
        )
        self._answers = Answers(tokenizer, self._turn_end.stops)
        self._written = TokenTexts(tokenizer.backend_tokenizer)
        self._template = ChatTemplate(tokenizer)

    @property
    def padding(self) -> int:
        """Return a token that may stand where nothing is read."""
        return self._end.token or 0

    def of(self, row: Mapping[str, Any]) -> list[LearnedText]:
        """Return the texts of a record, at least one.

        Raises:
            ValueError: it has no form that is known, or cannot be learned; the message says why.
        """
        form = form_of(row)
        if form == "chat":
            return self._chat(row)
        if form == "completion":
            return [self._completion(row["prompt"], row["completion"])]
        if form == "label":
            raise ValueError("has a `label`, which a causal LM does not learn; remove it")
        return [self._text(row["text"])]

    def question(self, row: Mapping[str, Any]) -> LMQuestion | None:
        """Return the prompt of a record's first answer; of a text without one, how it begins.

        None if nothing of it can be asked for.

        Raises:
            ValueError: as `of`.
        """
        text = self.of(row)[0]
        first = next((place for place, learned in enumerate(text.learned) if learned), 0)
        first = first or min(len(text.ids) // 2, _MOST_BEGUN)
        if not first:
            return None
        places = range(first, len(text.ids))
        end = next((place for place in places if not text.learned[place]), len(text.ids))
        is_chat = form_of(row) == "chat"
        stops = (self._turn_end if is_chat else self._end).stops
        shown = frozenset(self._template.call_tokens.values() if row.get("tools") else ())
        ids, wanted = text.ids[:first], text.ids[first:end]
        wanted = wanted[:-1] if wanted[-1] in stops else wanted
        expected = written(self._written, ids, wanted, shown)
        return LMQuestion(ids, self._written.decode(ids), expected, stops, shown)

    def said(self, question: LMQuestion, ids: Sequence[int]) -> str:
        """Return the text that a caller is sent for these tokens of an answer."""
        return written(self._written, question.ids, ids, question.shown)

    def _text(self, text: str) -> LearnedText:
        ids = list(prompt_of(self._tokenizer, text).ids)
        if not ids or ids[-1] not in self._end.stops:
            ids += _some(self._end.token)
        return LearnedText(ids, [True] * len(ids))

    def _chat(self, row: Mapping[str, Any]) -> list[LearnedText]:
        if not self._tokenizer.chat_template:
            raise ValueError("is a chat, but the base has no chat template; use prompt, completion")
        chat = Chat(plain_messages(row["messages"]), plain_tools(row.get("tools") or ()))
        max_calls = 1 if row.get("parallel_tool_calls") is False else None
        texts: list[LearnedText] = []
        for number, message in enumerate(chat.messages):
            if is_learned(row["messages"][number]):
                which = f"the answer in message {number + 1}"
                before = self._asked(replace(chat, messages=chat.messages[:number]), which)
                answer = self._chat_answer(before, message, chat.tools, max_calls, which)
                text = _learned(before, answer, self._turn_end, which)
                whole = texts[-1].followed_by(text) if texts else None
                texts[-1 if whole else len(texts) :] = [whole or text]
        return texts

    def _chat_answer(
        self,
        before: Prompt,
        message: Message,
        tools: Sequence[Tool],
        max_calls: int | None,
        which: str,
    ) -> Answer:
        """Return the tokens of an answer in a chat, of which serving makes the same message."""
        try:
            shown = self._template.call_tokens.values() if tools else ()
            text = answer_text(self._template, message)
            answer = self._answer(before, text, which, frozenset(shown))
            if tools:
                check_answer(self._template, message, answer.text, tools, max_calls)
        except NoSuchAnswer as error:
            raise ValueError(f"cannot be learned: {which} {error}") from error
        return answer

    def _asked(self, chat: Chat, which: str) -> Prompt:
        try:
            return self._template.prompt(chat)
        except ChatRefused as error:
            raise ValueError(f"cannot be asked for {which}: {error}") from error

    def _completion(self, prompt: str, completion: str) -> LearnedText:
        before = prompt_of(self._tokenizer, prompt)
        if not before.ids:
            before = Prompt(prompt, self._start())
        which = "its `completion`"
        return _learned(before, self._answer(before, completion, which), self._end, which)

    def _answer(
        self, before: Prompt, text: str, which: str, shown: Set[int] = frozenset()
    ) -> Answer:
        try:
            return self._answers.after(before, text, shown)
        except AnswerNotWritable as error:
            raise ValueError(f"cannot be learned, since of {which} {error}") from error

    def _start(self) -> list[int]:
        """Return what stands for an empty prompt, which serving takes as a token id only."""
        start = self._tokenizer.bos_token_id
        return list(_some(self._end.token if start is None else start))


def _learned(before: Prompt, answer: Answer, end: _End, which: str) -> LearnedText:
    ids = [*answer.ids, *_some(answer.end if answer.end in end.stops else end.token)]
    learned = [False] * len(before.ids) + [True] * len(ids)
    return LearnedText([*before.ids, *ids], learned, _note(answer, which))


def _note(answer: Answer, which: str) -> str:
    return "" if answer.is_exact else f"of {which} {difference(answer)}"


def _some(token: int | None) -> frozenset[int]:
    return frozenset() if token is None else frozenset([token])
