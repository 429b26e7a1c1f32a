"""Answers as tokens: those that a base must generate behind a prompt to say a text.

**The rule.** Of a prompt's tokens `p` and a text `t` the answer's tokens `a` are such that what a
caller is sent for `a` behind `p` (`written.py`) is `t`. They are, the first of which it is true:

1. what follows `p`'s text in the tokens of `p`'s text and `t` together, if these begin as those of
   `p`'s text alone: as the base has most likely seen such a text;
2. the tokens of `t` as a continuation (`continuing.py`);
3. the tokens of `t` by itself;
4. the tokens of a blank and `t` as a continuation: some decoders drop a text's first blank.

A tokenizer may be unable to write a text as it is: it joins words with blanks, or knows no capital
letters. If what it writes differs in such things only, it is taken, and `text` says what it is.
"""

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from os.path import commonprefix
from typing import Any

from adapters_core.tokens.continuing import continuing
from adapters_core.tokens.prompts import Prompt, plain_ids
from adapters_core.tokens.token_texts import TokenTexts
from adapters_core.tokens.written import written

_SHOWN_CHARS = 30


class AnswerNotWritable(ValueError):
    """The base cannot be made to say a text; the message says what it would say."""


@dataclass(frozen=True)
class Answer:
    """What a base is to generate.

    Args:
        ids: its tokens, without one that ends it.
        wanted: the text that they were made of, without one that ends it.
        text: what a caller is sent for them.
        end: a token that ends answers and stood at the text's end.
    """

    ids: Sequence[int]
    wanted: str
    text: str
    end: int | None = None

    @property
    def is_exact(self) -> bool:
        """Return whether a caller is sent the text as it was given."""
        return self.text == self.wanted


class Answers:
    """Makes tokens of answers.

    Args:
        tokenizer: the base's, over one of the `tokenizers` library.
        ends: tokens that end an answer; a text may end in one of them, which is dropped.
    """

    def __init__(self, tokenizer: Any, ends: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._texts = TokenTexts(tokenizer.backend_tokenizer)
        self._end_texts = {tokenizer.convert_ids_to_tokens(end): end for end in sorted(ends)}

    def after(self, prompt: Prompt, text: str, shown: Set[int] = frozenset()) -> Answer:
        """Return the tokens of `text` behind `prompt`.

        Args:
            prompt: of the answer.
            text: of the answer.
            shown: special tokens that a caller is sent as text.

        Raises:
            AnswerNotWritable: no tokens say it, or one that ends answers stands within it.
        """
        text, end = self._without_end(text)
        within = next((one for one in self._end_texts if one in text), None)
        if within is not None:
            raise AnswerNotWritable(f"{within!r}, which ends an answer, stands within it")
        tried = []
        for ids in self._candidates(prompt.text, text):
            said = written(self._texts, prompt.ids, ids, shown)
            tried.append(Answer(ids, text, said, end))
            if tried[-1].is_exact:
                return tried[-1]
        close = [answer for answer in tried if self._is_close(answer)]
        if not close:
            raise AnswerNotWritable(difference(tried[0]))
        return max(close, key=_likeness)

    def _without_end(self, text: str) -> tuple[str, int | None]:
        """Return a text without the end token that it ends in, and that token."""
        named = next((one for one in self._end_texts if text.endswith(one)), "")
        return text.removesuffix(named), self._end_texts.get(named)

    def _candidates(self, before: str, text: str) -> Iterator[list[int]]:
        """Yield tokens that may say `text` behind the text `before`."""
        start = plain_ids(self._tokenizer, before)
        whole = plain_ids(self._tokenizer, before + text)
        if whole[: len(start)] == start:
            yield whole[len(start) :]
        yield self._continuing(text)
        yield plain_ids(self._tokenizer, text)
        yield self._continuing(" " + text)

    @cached_property
    def _continuing(self) -> Callable[[str], list[int]]:
        return continuing(self._tokenizer)

    def _is_close(self, answer: Answer) -> bool:
        has_unknown = self._tokenizer.unk_token_id in answer.ids
        return not has_unknown and self._folded(answer.text) == self._folded(answer.wanted)

    def _folded(self, text: str) -> str:
        """Return a text without what tokenizers commonly change: case, accents, blanks."""
        normalizer = self._tokenizer.backend_tokenizer.normalizer
        folded = text if normalizer is None else normalizer.normalize_str(text)
        return "".join(folded.replace("\u2581", " ").split())


def _likeness(answer: Answer) -> tuple[bool, int]:
    """Return how like what is wanted an answer is: blanks at its beginning count first."""
    wanted, said = answer.wanted, answer.text
    begins = len(wanted) - len(wanted.lstrip()) == len(said) - len(said.lstrip())
    return begins, len(commonprefix([wanted, said]))


def difference(answer: Answer) -> str:
    """Return in words where what is said differs from what is wanted."""
    same = len(commonprefix([answer.wanted, answer.text]))
    near = slice(max(0, same - _SHOWN_CHARS // 2), same + _SHOWN_CHARS)
    return f"the base's tokenizer makes {answer.text[near]!r} of {answer.wanted[near]!r}"
