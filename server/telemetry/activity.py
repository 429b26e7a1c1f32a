"""What each adapter was asked for since it was first seen, for those that were used last. Pure."""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from threading import Lock

#: Upper bounds of the times to first token that are counted, in seconds; longer ones come last.
BOUNDS_S = (
    *(0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 20.0, 30.0, 60.0),
)
MAX_ADAPTERS = 1000


@dataclass(frozen=True)
class AcceptedStats:
    """A sequence, or a request of a base that answers in one pass, was accepted.

    Args:
        adapter: its name; empty for the base.
        digest: of the version; empty for the base.
        mode: that it is computed in; None for the base.
        prompt_tokens: of its prompt, or inputs.
    """

    adapter: str
    digest: str
    mode: str | None
    prompt_tokens: int


@dataclass
class Counts:
    """What was asked for and answered.

    Args:
        requests: sequences that were accepted, or requests of a base that answers in one pass.
        prompt_tokens: of them.
        generated_tokens: of those that have ended.
        first_tokens: how many first tokens came within each of `BOUNDS_S`, and later.
    """

    requests: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    first_tokens: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))


@dataclass
class Used:
    """One adapter, or the base: as it was used last, and its counts."""

    digest: str = ""
    mode: str | None = None
    counts: Counts = field(default_factory=Counts)


class Activity:
    """Counts by adapter, for the `max_adapters` that were used last; safe from any thread."""

    def __init__(self, max_adapters: int = MAX_ADAPTERS) -> None:
        self._max_adapters = max_adapters
        self._used: OrderedDict[str, Used] = OrderedDict()
        self._total = Counts()
        self._lock = Lock()

    def on_accepted(self, stats: AcceptedStats) -> None:
        """Count a request; its adapter is now the one that was used last."""
        with self._lock:
            used = self._of(stats.adapter)
            used.digest, used.mode = stats.digest, stats.mode
            self._used.move_to_end(stats.adapter)
            for counts in (used.counts, self._total):
                counts.requests += 1
                counts.prompt_tokens += stats.prompt_tokens

    def on_first_token(self, adapter: str, seconds: float) -> None:
        """Count a first token, or the answer of a base that gives it in one pass."""
        place = bisect_left(BOUNDS_S, seconds)
        with self._lock:
            for counts in (self._of(adapter).counts, self._total):
                counts.first_tokens[place] += 1

    def on_ended(self, adapter: str, generated_tokens: int) -> None:
        """Count what a sequence has made."""
        with self._lock:
            for counts in (self._of(adapter).counts, self._total):
                counts.generated_tokens += generated_tokens

    def latest(self, limit: int) -> tuple[Counts, Mapping[str, Used]]:
        """Return the counts of all, and the adapters that were used last, the last one first."""
        with self._lock:
            names = list(self._used)[: -limit - 1 : -1]
            found = {name: self._used[name] for name in names}
            copies = {n: replace(u, counts=_copy(u.counts)) for n, u in found.items()}
            return _copy(self._total), copies

    def _of(self, adapter: str) -> Used:
        used = self._used.get(adapter)
        if used is None:
            used = self._used[adapter] = Used()
            if len(self._used) > self._max_adapters:
                self._used.popitem(last=False)
        return used


def _copy(counts: Counts) -> Counts:
    return replace(counts, first_tokens=list(counts.first_tokens))
