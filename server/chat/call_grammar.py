"""The grammar of answers that call functions, in the very form in which the base writes calls.

Written for llguidance: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md. A rule
refers to the schema of the function with the number i as `@arguments_i`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adapters_core.calls.form import ID, NEXT_ID, SHORT_ID, CallForm

#: Of one answer; a base that has lost its way would write calls for ever.
_MAX_CALLS = 32
_SLOT = re.compile(f"[{ID}{NEXT_ID}]")
_ID = f"/{SHORT_ID}/"
_TEXT = r"/(.|\n)*/"
#: Text that does not look like a call that nothing opens.
_OTHER = r"/([^{\[\s](.|\n)*)?/"


@dataclass(frozen=True)
class CallGrammar:
    """Makes grammars of calls.

    Args:
        form: in which the base writes calls.
        names: of the functions, in the order of their schemas' numbers.
        special: text -> id of the special tokens with which the base writes calls.
        max_calls: of one answer; None for any number.
    """

    form: CallForm
    names: Sequence[str]
    special: Mapping[str, int]
    max_calls: int | None = None

    def required(self) -> str:
        """Return the grammar of answers that are calls, at least one, and nothing else."""
        return "\n".join(["start: calls", *self._calls(self.form.before, self._more)])

    def optional(self, content: str = "") -> str:
        """Return the grammar of answers that may have calls, each of them well-formed.

        Args:
            content: a rule that the answer obeys if it has no calls; empty for any text.

        Raises:
            ValueError: calls begin as JSON does, and the content is another rule's JSON.
        """
        opens = self._said(self.form.also_opens) if self.form.also_opens in self.special else ""
        if content and not (self.form.opening or opens):
            raise ValueError("the base's calls begin as an answer in JSON does")
        if content:
            start = [f"start: {'' if self.form.opening else opens} calls | {content}"]
        elif self.form.opening:
            return "\n".join(self._amid_text(self.form.opening))
        else:
            begun = f" | {opens} calls" if opens else ""
            start = [f"start: OTHER | calls{begun}", f"OTHER: {_OTHER}"]
        return "\n".join([*start, *self._calls(self.form.before, self._more)])

    def _amid_text(self, opening: str) -> list[str]:
        """Return the rules of any text in which calls begin where they are opened."""
        if opening in self.special:
            head = f"head: TEXT {self._said(opening)}"
        else:
            head = f"head[lazy]: TEXT {_quoted(opening)}"
        rest = self.form.before.partition(opening)[2]
        more = self._more if self.form.container == "list" else ""
        start = ["start: (head calls)* TEXT", f"TEXT: {_TEXT}", head]
        return [*start, *self._calls(rest, more)]

    @property
    def _more(self) -> str:
        """Return what may stand behind an answer's first call: others."""
        most = self.max_calls or _MAX_CALLS
        if self.form.between is None or most == 1:
            return ""
        return f"({self._said(self.form.between)} call){{0,{most - 1}}}"

    def _calls(self, before: str, more: str) -> list[str]:
        """Return the rules of calls behind what stands before the first one's name."""
        form = self.form
        named = [
            f"{_quoted(name)} {self._said(form.middle)} @arguments_{number}"
            for number, name in enumerate(self.names)
        ]
        return [
            f"calls: {self._said(before)} call {more} {self._said(form.after)}",
            f"call: {' | '.join(named)}",
        ]

    def _said(self, text: str) -> str:
        """Return a text of the form as a part of a rule; empty for no text."""
        tokens = "|".join(map(re.escape, sorted(self.special, key=len, reverse=True)))
        parts = re.split(f"({tokens}|{_SLOT.pattern})" if tokens else f"({_SLOT.pattern})", text)
        return " ".join(self._part(part) for part in parts if part)

    def _part(self, part: str) -> str:
        if _SLOT.fullmatch(part):
            return _ID
        return f"<[{self.special[part]}]>" if part in self.special else _quoted(part)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
