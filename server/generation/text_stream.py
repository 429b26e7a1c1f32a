"""From an answer's tokens to its text, piece by piece, up to a stop string."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from adapters_core.tokens.token_texts import TokenTexts
from adapters_core.tokens.written import Written
from server.generation.stops import StopSearch


@dataclass(frozen=True)
class TextForm:
    """What of an answer's tokens becomes text.

    Args:
        stops: strings that end it; they are looked for among special tokens, too.
        keeps_stop: whether the stop string that ended it is a part of it.
        skips_special: whether special tokens are left out.
        shown: special tokens that are text all the same: those with which calls are written.
    """

    stops: tuple[str, ...] = ()
    keeps_stop: bool = False
    skips_special: bool = True
    shown: frozenset[int] = frozenset()

    def hides(self, token: int, texts: TokenTexts) -> bool:
        """Return whether a token is a special one that is left out."""
        return self.skips_special and token in texts.special and token not in self.shown


@dataclass(frozen=True)
class Place:
    """Where a token stands.

    Args:
        offset: characters of the answer's text before it.
        previous: the last token before it that is text, of the prompt or the answer; None without.
    """

    offset: int = 0
    previous: int | None = None


@dataclass(frozen=True)
class Piece:
    """Text that a token makes final.

    Args:
        text: to be sent.
        is_stopped: whether a stop string was met, where the text ends.
        place: of the token.
    """

    text: str
    is_stopped: bool = False
    place: Place = Place()


class TextStream:
    """Tokens in, text out; holds back what may still become a character or a stop string.

    It holds three bytes and the beginning of one stop string at most.

    Args:
        texts: of the tokenizer.
        prompt: the tokens before the answer.
        form: of its text.
        offset: characters of the answer before its first token.
    """

    def __init__(
        self, texts: TokenTexts, prompt: Sequence[int], form: TextForm, offset: int = 0
    ) -> None:
        self._texts = texts
        self._form = form
        self._written = Written(texts, prompt, form.skips_special, form.shown)
        self._num_chars = offset
        self._search = StopSearch(form.stops)
        self._held: list[tuple[str, bool]] = []

    def push(self, token: int, is_last: bool = False) -> Piece:
        """Take one more token; with the last one nothing is held back."""
        previous = self._written.previous
        text = self._written.push(token)
        place = Place(self._num_chars + self._written.num_lost, previous)
        text += self._written.rest() if is_last else ""
        self._num_chars += len(text)
        if not self._form.stops:
            return Piece(text, place=place)
        hidden = self._texts.name(token) if self._form.hides(token, self._texts) else ""
        return replace(self._searched(text, hidden, is_last), place=place)

    def end(self, token: int) -> Piece:
        """End the answer with a token that ends answers; it is text if a stop string would be."""
        if self._form.keeps_stop:
            return self.push(token, is_last=True)
        place = Place(self._num_chars, self._written.previous)
        return replace(self.flush(), place=place)

    def flush(self) -> Piece:
        """Return what was held back; nothing follows."""
        return self._searched(self._written.rest(), "", is_last=True)

    def _searched(self, text: str, hidden: str, is_last: bool) -> Piece:
        """Return the text that is final behind new text and a special token that is not told."""
        for new, is_told in ((text, True), (hidden, False)):
            for number, char in enumerate(new, 1):
                if stop := self._search.take(char):
                    self._held.append((new[:number], is_told))
                    return self._stopped(stop)
            self._held.append((new, is_told))
        keep = 0 if is_last else self._search.num_begun
        return Piece(self._taken(self._num_held - keep))

    def _stopped(self, stop: str) -> Piece:
        text = self._taken(self._num_held - len(stop))
        self._held = []
        return Piece(text + stop if self._form.keeps_stop else text, is_stopped=True)

    @property
    def _num_held(self) -> int:
        return sum(len(text) for text, _ in self._held)

    def _taken(self, count: int) -> str:
        """Take the first characters that are held; return those that are told."""
        told, kept = "", []
        for text, is_told in self._held:
            told += text[:count] if is_told else ""
            if text[count:]:
                kept.append((text[count:], is_told))
            count = max(0, count - len(text))
        self._held = kept
        return told
