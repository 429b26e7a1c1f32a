"""Calls of functions found in an answer's text while it arrives.

What is found depends on the text alone, not on how it is cut into pieces. Nothing is lost: what is
no call, or a malformed one, is content. Blanks before, between and behind calls are the form's.

A call is told when it is whole, since until then it may turn out malformed. One with more than
`_MAX_HELD` characters is told from its name on, with its arguments as they arrive; so is every call
of an answer that is sure to be well-formed.
"""

import re
from collections.abc import Collection, Generator
from dataclasses import dataclass
from typing import TypeVar

from adapters_core.calls.form import Call, CallForm
from adapters_core.calls.items import Head, Items
from adapters_core.calls.json_text import Malformed, ObjectScan, members

#: Characters of a call that are held until it is whole, and of blanks until what follows is known.
_MAX_HELD = 512
_MAX_BLANKS = 64
_BLANKS = re.compile(r"\s*")
#: Between calls that nothing opens.
_SEPARATORS = re.compile(r"[\s;,]*")

T = TypeVar("T")
#: A part of the reading: it yields to wait for more text, and returns a `T`.
Waiting = Generator[None, None, T]


@dataclass(frozen=True)
class Content:
    """A piece of what is no call."""

    text: str


@dataclass(frozen=True)
class CallPiece:
    """A piece of a call.

    Args:
        index: of the call in the answer, from 0.
        arguments: the next part of its arguments.
        name: of the function, with the first piece only.
        id: that the base wrote, with the first piece only; may be empty.
    """

    index: int
    arguments: str
    name: str | None = None
    id: str = ""


Piece = Content | CallPiece


class CallReader:
    """Reads one answer.

    Args:
        form: in which the base writes calls.
        names: of the functions; a call of another one is content.
        is_sure: whether calls cannot be malformed, since the answer is constrained.
        max_calls: after so many nothing more is read.

    Attributes:
        num_calls: that are whole so far.
        has_begun: whether a call has begun.
    """

    def __init__(
        self,
        form: CallForm,
        names: Collection[str],
        is_sure: bool = False,
        max_calls: int | None = None,
    ) -> None:
        self._items = Items(form, names)
        self._openings = tuple(filter(None, (form.opening, form.also_opens)))
        self._is_bare, self._closing = not form.opening, form.closing
        self._max_held = 0 if is_sure else _MAX_HELD
        self._max_calls = max_calls
        self._held = ""
        self._is_last = False
        self._told: list[Piece] = []
        self._blanks = ""  # content, unless a call follows
        self._has_content = False  # since the beginning, or since the last call
        self.num_calls = 0
        self.has_begun = False
        self._reading = self._read()
        next(self._reading)

    @property
    def is_over(self) -> bool:
        """Return whether there are as many calls as there may be."""
        return self._max_calls is not None and self.num_calls >= self._max_calls

    def push(self, text: str) -> list[Piece]:
        """Take the next piece of the answer; return what it makes certain."""
        self._held += text
        return self._resumed()

    def finish(self) -> list[Piece]:
        """Return what was held; nothing follows."""
        self._is_last = True
        return self._resumed()

    def _resumed(self) -> list[Piece]:
        next(self._reading, None)
        told, self._told = self._told, []
        return told

    def _read(self) -> Waiting[None]:
        yield
        while (yield from self._find_opening()):
            yield from self._read_calls()
            if self.is_over:
                return

    # Content

    def _find_opening(self) -> Waiting[bool]:
        """Tell content up to where calls may begin; return False at the answer's end."""
        while True:
            start = self._opening_at()
            if start is not None:
                self._tell(start)
                return True
            self._tell(len(self._held) - (0 if self._is_last else self._num_open()))
            if self._is_last:
                if self._has_content or not self.num_calls:
                    self._tell_blanks()
                return False
            yield

    def _opening_at(self) -> int | None:
        """Return where in the held text calls may begin."""
        found = [at for each in self._openings if (at := self._held.find(each)) >= 0]
        if self._may_be_bare and self._held[(at := self._end(0)) : at + 1] in ("{", "["):
            return 0
        return min(found, default=None)

    @property
    def _may_be_bare(self) -> bool:
        """Return whether a call may begin here that nothing opens."""
        return self._is_bare and not self._has_content

    def _num_open(self) -> int:
        """Return how many characters at the held text's end may belong to an opening."""
        if self._may_be_bare and self._end(0) == len(self._held):
            return len(self._held)
        return max((_overlap(self._held, opening) for opening in self._openings), default=0)

    def _tell(self, size: int) -> None:
        """Take the beginning of the held text for content; tell it, but for blanks at its end."""
        text, self._held = self._held[:size], self._held[size:]
        told = text.rstrip()
        if told:
            self._tell_blanks()
            self._told.append(Content(told))
            self._has_content = True
        self._blanks += text[len(told) :]
        if len(self._blanks) > _MAX_BLANKS:
            self._tell_blanks()

    def _tell_blanks(self) -> None:
        if self._blanks:
            self._told.append(Content(self._blanks))
        self._blanks = ""

    # Calls

    def _read_calls(self) -> Waiting[None]:
        """Read calls where they may begin; if they do not, what looked like it is content."""
        opening = next((each for each in self._openings if self._held.startswith(each)), "")
        start = yield from self._text_from(len(opening) or self._end(0))
        in_list = self._held.startswith("[", start)
        if in_list:
            start = yield from self._text_from(start + 1)
        if not (yield from self._read_call(start)):
            self._tell(max(len(opening), self._end(0) + 1))
            return
        if in_list:
            yield from self._read_list()
        if not self.is_over:
            yield from self._skip(self._closing)

    def _read_list(self) -> Waiting[None]:
        """Read a list's calls behind its first one."""
        while not self.is_over:
            start = yield from self._text_from(0)
            if self._held.startswith("]", start):
                self._held = self._held[start + 1 :]
                return
            if not self._held.startswith(",", start):
                return
            start = yield from self._text_from(start + 1)
            if not (yield from self._read_call(start)):
                return

    def _read_call(self, start: int) -> Waiting[bool]:
        """Read the call at `start`; return whether it is one, else leave the text as it is."""
        try:
            if self._held.startswith("{", start):
                yield from self._read_object(start)
            elif self._items.may_be_named:
                yield from self._read_named(start)
            else:
                return False
        except ValueError:
            return False
        return True

    def _read_object(self, start: int) -> Waiting[None]:
        """Read a call that is a JSON object.

        Raises:
            ValueError: it is none.
        """
        scan, at = ObjectScan(), start
        while True:
            head = self._items.head(self._held, start)
            stop = len(self._held) if head is None else self._last_held(head, start)
            end = scan.push(self._held[:stop], at)
            if end is not None:
                break
            if head is not None and stop < len(self._held):
                yield from self._stream(head, start, opened="{")
                return
            at = stop
            yield from self._more()
        call = self._items.call(self._held[start:end])
        self._held = self._held[end:]
        self._tell_call(call)

    def _read_named(self, start: int) -> Waiting[None]:
        """Read a name and arguments.

        Raises:
            ValueError: they are none.
        """
        while (head := self._items.head(self._held[: start + _MAX_HELD], start)) is None:
            if "{" in self._held[start:] or len(self._held) - start >= _MAX_HELD:
                raise ValueError("no name")
            yield from self._more()
        begin = at = start + head.size
        scan = ObjectScan()
        while (end := scan.push(self._held[: self._last_held(head, start)], at)) is None:
            at = self._last_held(head, start)
            if at < len(self._held):
                yield from self._stream(head, start)
                return
            yield from self._more()
        arguments = self._held[begin:end]
        members(arguments)
        self._held = self._held[end:]
        self._tell_call(Call(head.name, arguments, head.id))

    def _last_held(self, head: Head, start: int) -> int:
        """Return up to where the call at `start` is held until it is whole."""
        return min(len(self._held), start + max(self._max_held, head.size))

    def _stream(self, head: Head, start: int, opened: str = "") -> Waiting[None]:
        """Tell a call whose arguments have begun, as far as it goes; they may be malformed.

        Args:
            head: of the call.
            start: where it begins in the held text.
            opened: what stands open around its arguments.
        """
        self._held = self._held[start + head.size :]
        index = self._begin(head.name, head.id)
        if not (yield from self._pass_on(ObjectScan(is_strict=False), index)):
            return
        self.num_calls += 1
        if opened and not self.is_over:
            yield from self._pass_on(ObjectScan(opened, is_strict=False), None)

    def _pass_on(self, scan: ObjectScan, index: int | None) -> Waiting[bool]:
        """Take the text up to an object's end, or to where it is malformed; tell it as arguments.

        Returns whether it has ended so, and not with the answer.

        Args:
            scan: finds the end.
            index: of the call whose arguments the text is; None drops it.
        """
        while True:
            try:
                end = scan.push(self._held)
            except Malformed as error:
                end = error.at
            size = len(self._held) if end is None else end
            text, self._held = self._held[:size], self._held[size:]
            if index is not None and text:
                self._told.append(CallPiece(index, text))
            if end is not None or self._is_last:
                return end is not None
            yield

    def _tell_call(self, call: Call) -> None:
        index = self._begin(call.name, call.id)
        self._told.append(CallPiece(index, call.arguments))
        self.num_calls += 1

    def _begin(self, name: str, call_id: str) -> int:
        """Tell a call's name; return its index."""
        self._blanks, self._has_content, self.has_begun = "", False, True
        self._told.append(CallPiece(self.num_calls, "", name, call_id))
        return self.num_calls

    # Text

    def _text_from(self, at: int) -> Waiting[int]:
        """Return where the first character that is no blank stands behind `at`, or the end."""
        while (found := _behind(_BLANKS, self._held, at)) == len(self._held):
            if self._is_last:
                break
            yield
        return found

    def _skip(self, closing: str) -> Waiting[None]:
        """Drop a closing behind blanks, if there is one."""
        start = yield from self._text_from(0)
        while closing.startswith(self._held[start:]) and not self._is_last:
            if self._held.startswith(closing, start):
                break
            yield
        if self._held.startswith(closing, start):
            self._held = self._held[start + len(closing) :]

    def _more(self) -> Waiting[None]:
        """Wait for more text.

        Raises:
            ValueError: there is none.
        """
        if self._is_last:
            raise ValueError("the answer is over")
        yield

    def _end(self, at: int) -> int:
        """Return the index behind the separators at `at`, or behind the blanks before all calls."""
        return _behind(_SEPARATORS if self.num_calls else _BLANKS, self._held, at)


def read_whole(
    form: CallForm, names: Collection[str], text: str, max_calls: int | None = None
) -> tuple[str, list[Call]]:
    """Return the content and the calls of a whole answer; calls without ids."""
    reader = CallReader(form, names, max_calls=max_calls)
    content, calls = "", list[Call]()
    for piece in [*reader.push(text), *reader.finish()]:
        if isinstance(piece, Content):
            content += piece.text
        elif piece.name is not None:
            calls.append(Call(piece.name, ""))
        else:
            calls[-1] = Call(calls[-1].name, calls[-1].arguments + piece.arguments)
    return content, calls


def _overlap(text: str, opening: str) -> int:
    """Return the length of the longest end of `text` that begins `opening`."""
    longest = min(len(text), len(opening) - 1)
    return next((n for n in range(longest, 0, -1) if opening.startswith(text[-n:])), 0)


def _behind(pattern: re.Pattern[str], text: str, at: int) -> int:
    """Return the index behind what matches at `at`."""
    match = pattern.match(text, at)
    return match.end() if match else at
