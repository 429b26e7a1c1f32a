"""Chooses a request's mode and takes the lease of its adapter in one call.

No request waits for a merge that the planner starts: it runs beside the batch, requests are served
factored until it is done, and through the merged weights afterwards. Only with `--mode merged` a
request waits for its own adapter's merge; requests for other adapters go on.
"""

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from adapters_core.layers.bank import Layout
from server.adapters.loader import Loader
from server.adapters.modes import Mode, ModeSetting
from server.adapters.payload import Factored
from server.adapters.residency import Entry
from server.planning.costs import Costs
from server.planning.planner import Planner, Request
from server.telemetry.observer import Observer, PlanStats

#: A merge that failed is not tried again for so many requests.
_RETRY_AFTER = 256
#: Adapters whose costs are remembered.
_MAX_KNOWN = 256


@dataclass(frozen=True)
class Placed:
    """A request's mode and its lease; neither for the base itself."""

    mode: Mode | None
    lease: Entry | None


class Placement:
    """Chooses modes and takes leases; safe from any thread.

    Args:
        loader: where leases come from.
        setting: `factored` or `merged` is the mode of all adapters.
        planner: plans for `auto`; without one `auto` is factored.
        costs_of: what adapters of a layout cost; None if it is not known.
        deterministic: keep one mode per adapter for the life of this process: `auto` is factored.
        observer: receives every decision.
    """

    def __init__(
        self,
        loader: Loader,
        setting: ModeSetting,
        planner: Planner | None = None,
        costs_of: Callable[[Layout], Costs | None] | None = None,
        deterministic: bool = False,
        observer: Observer | None = None,
    ) -> None:
        self._loader = loader
        self._forced: Mode | None = None if setting == "auto" else setting
        if setting == "auto" and (deterministic or planner is None):
            self._forced = "factored"
        self._planner = planner
        self._costs_of = costs_of or (lambda layout: None)
        self._observer = observer or Observer()
        self._by_layout: dict[Hashable, Costs | None] = {}
        self._known: dict[str, Costs] = {}  # of the recently planned
        self._refused: dict[str, int] = {}  # merges that failed -> when, counted in requests
        self._count = 0
        self._lock = threading.Lock()

    def place(
        self,
        digest: str | None,
        prompt: int = 1,
        answer: int = 1,
        num_open: int = 0,
        mode: Mode | None = None,
    ) -> Placed:
        """Return the mode and a lease for one more request.

        Args:
            digest: the adapter's; None for the base.
            prompt: its tokens.
            answer: the tokens that will be generated, at most.
            num_open: sequences that are open beside it.
            mode: keep this mode: another sequence of the same request has it.
        """
        if mode is not None and digest is not None:
            return Placed(mode, self._loader.acquire(digest, mode))
        if self._forced is not None:
            return self._force(digest, self._forced)
        with self._lock:
            wanted = self._plan(digest, prompt, answer, num_open)
        if digest is None:
            return Placed(None, None)
        return self._lease(digest, wanted)

    def place_beside(self, digest: str | None, mode: Mode | None = None) -> Placed:
        """Return the mode and a lease for a request that no plan is made for: a batch's.

        What is in memory serves it; nothing is merged for it, unless everything is.
        """
        chosen = mode or self._forced
        if digest is None:
            return Placed(None, None)
        if chosen is not None:
            return Placed(chosen, self._loader.acquire(digest, chosen))
        return self._lease(digest, "factored")

    @property
    def is_short_of_room(self) -> bool:
        """Return whether an adapter's load waits until leases are given back."""
        return self._loader.memory.is_short_of_room

    def make_room(self) -> None:
        """Evict the adapters that are not in use: a step has found too little memory."""
        self._loader.memory.make_room()

    def release(self, entry: Entry) -> None:
        """Give a lease back; safe for an entry that failed."""
        self._loader.release(entry)

    def mode_of(self, digest: str) -> Mode:
        """Return the mode in which a request for `digest` would be served, were it here now."""
        if self._forced is not None:
            return self._forced
        with self._lock:
            planned = self._planner is not None and digest in self._planner.plan
        return "merged" if planned else "factored"

    def _force(self, digest: str | None, mode: Mode) -> Placed:
        if digest is None:
            return Placed(None, None)
        self._observe(mode, "forced")
        return Placed(mode, self._loader.acquire(digest, mode))

    def _plan(self, digest: str | None, prompt: int, answer: int, num_open: int) -> Mode:
        assert self._planner is not None
        self._count += 1
        costs = self._costs(digest) if digest is not None else None
        before = self._planner.plan
        mode = self._planner.choose(Request(digest, prompt, answer, num_open, costs))
        if self._planner.plan != before:
            self._loader.memory.prefer(self._planner.plan)
        return mode

    def _lease(self, digest: str, wanted: Mode) -> Placed:
        """Take what is in memory, and fetch what is wanted beside it."""
        merged = self._loader.acquire_ready(digest, "merged")
        if merged is not None and wanted == "merged":
            self._observe("merged", "planned")
            return Placed("merged", merged)
        factored = self._loader.acquire_ready(digest, "factored")
        if factored is None and merged is not None:
            # The merged weights serve this request; the factored form is loaded for the next.
            self._loader.prefetch(digest, "factored")
            self._observe("merged", "resident")
            return Placed("merged", merged)
        if merged is not None:
            self._loader.release(merged)
        if wanted == "merged":
            self._start_merge(digest)
        self._observe("factored", "merging" if wanted == "merged" else "planned")
        return Placed("factored", factored or self._loader.acquire(digest, "factored"))

    def _start_merge(self, digest: str) -> None:
        """Merge beside the running batch, unless the last attempt failed a short while ago."""
        with self._lock:
            if self._count - self._refused.get(digest, -_RETRY_AFTER) < _RETRY_AFTER:
                return
            self._refused.pop(digest, None)
        entry = self._loader.acquire(digest, "merged")
        self._loader.when_done(entry, lambda: self._after_merge(digest, entry))
        self._loader.release(entry)

    def _after_merge(self, digest: str, entry: Entry) -> None:
        if entry.error is None:
            return
        with self._lock:
            if len(self._refused) > _RETRY_AFTER:
                self._refused.clear()
            self._refused[digest] = self._count

    def _costs(self, digest: str) -> Costs | None:
        """Return an adapter's costs; None until it was once in memory in factored mode."""
        entry = self._loader.memory.peek(digest, "factored")
        payload = entry.payload if entry is not None else None  # it may be evicted meanwhile
        if not isinstance(payload, Factored):
            return self._known.get(digest)
        layout = payload.bank.layout
        if layout.key not in self._by_layout:
            self._by_layout[layout.key] = self._costs_of(layout)
        costs = self._by_layout[layout.key]
        if costs is not None:
            self._remember(digest, costs)
        return costs

    def _remember(self, digest: str, costs: Costs) -> None:
        self._known.pop(digest, None)
        self._known[digest] = costs
        if len(self._known) > _MAX_KNOWN:
            del self._known[next(iter(self._known))]

    def _observe(self, mode: Mode, reason: str) -> None:
        planner = self._planner
        num_planned = len(planner.plan) if planner else 0
        saving = planner.saving if planner else 0.0
        self._observer.on_placed(PlanStats(mode, reason, num_planned, saving))
