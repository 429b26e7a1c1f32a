"""The phases of a start: what it does now, for any caller, and how long each took, in the log."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_LOG = logging.getLogger("overtone")
#: A phase that goes on is logged this often.
_SAY_S = 5.0


@dataclass
class _Phase:
    name: str
    begun: float
    share: float = 0.0

    def words(self, now: float) -> str:
        done = f", {self.share:.0%} done" if self.share else ""
        return f"{self.name}{done}, for {now - self.begun:.0f} s"


class Phases:
    """The phases of one start, one after the other; a phase may have phases of its own.

    Args:
        clock: seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first = self._said = clock()
        self._open: list[_Phase] = []
        self._kept: list[str] = []

    @property
    def now(self) -> str:
        """Return what the start does, how much of it is done, and for how long it has."""
        opened = self._open[-1:]
        return opened[0].words(self._clock()) if opened else "it begins"

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Log that a phase begins, and how long it took."""
        opened = _Phase(name, self._clock())
        self._said = opened.begun
        self._open.append(opened)
        _LOG.info("start: %s", name)
        try:
            yield
            _LOG.info("start: %s took %.2f s", name, self._clock() - opened.begun)
        finally:
            self._open.pop()

    def progress(self, share: float) -> None:
        """Say how much of the present phase is done, 0..1; one that takes long is logged again."""
        self._open[-1].share = share
        if self._clock() - self._said >= _SAY_S:
            self._said = self._clock()
            _LOG.info("start: %s", self.now)

    def skip(self, name: str) -> None:
        """Note a phase with a result that an earlier start has kept."""
        self._kept.append(name)

    def finish(self) -> None:
        """Log the whole start in one line."""
        kept = f"; kept from an earlier start: {', '.join(self._kept)}" if self._kept else ""
        _LOG.info("start: all took %.2f s%s", self._clock() - self._first, kept)
