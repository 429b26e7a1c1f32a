"""What the parts of the server report: plain dataclasses, passed to an `Observer`.

Only metrics.py knows Prometheus; everything else calls these methods, from any thread.
"""

from dataclasses import dataclass
from typing import Literal

from server.telemetry.activity import AcceptedStats

#: Why an adapter could not be loaded: its stored file does not have its digest, is not there, or
#: anything else (it does not fit the base, there is no room, …).
LoadFault = Literal["damaged", "missing", "other"]


@dataclass(frozen=True)
class StepStats:
    """One step of the engine.

    Args:
        seconds: wall time of the step.
        mode: `base`, `factored`, `merged` or `mixed`: what the step's rows asked for.
        num_rows: token rows computed, without padding.
        num_adapters: different adapters among them.
        num_running: sequences that hold cache pages.
        num_waiting: sequences that do not yet.
        prompt_tokens: prompt tokens computed in this step.
        generated_tokens: tokens sampled in this step.
        cached_tokens: prompt tokens that its new sequences found computed.
        num_preemptions: sequences that gave their pages up, since the start.
    """

    seconds: float
    mode: str
    num_rows: int
    num_adapters: int
    num_running: int
    num_waiting: int
    prompt_tokens: int
    generated_tokens: int
    cached_tokens: int = 0
    num_preemptions: int = 0


@dataclass(frozen=True)
class CacheStats:
    """A cache as it stands; counts since start. `cache` is `coefficients`, `host` or `merged`."""

    cache: str
    num_entries: int
    size_bytes: int
    hits: int
    misses: int
    evictions: int


@dataclass(frozen=True)
class LoadStats:
    """One adapter brought from its blob into memory; `materialise_s` is None in factored mode."""

    method: str
    seconds: float
    materialise_s: float | None


@dataclass(frozen=True)
class PlanStats:
    """One sequence for an adapter was given its mode.

    Args:
        mode: `factored` or `merged`.
        reason: `forced` by a setting, `planned`, `merging` (factored until its merge is done) or
            `resident` (merged because that is what was in memory).
        num_planned: adapters that the plan wants merged.
        saving: the share of the modelled time that the plan saves against all factored.
    """

    mode: str
    reason: str
    num_planned: int
    saving: float


@dataclass(frozen=True)
class ServingLoad:
    """What one server has to do at a moment.

    Args:
        running: names of the adapters of sequences that run.
        waiting: those of sequences that wait.
        num_running: sequences that hold cache pages; batches' are not among them.
        num_waiting: sequences or inputs that wait; batches' are not among them.
        kv_usage: share of the cache that sequences hold, 0 to 1; kept prefixes are free.
        max_adapters: different adapters that can run together.
        page_size: tokens of a page; 0 for a base that keeps no keys and values.
        num_pages: pages of the cache.
    """

    running: frozenset[str]
    waiting: frozenset[str]
    num_running: int
    num_waiting: int
    kv_usage: float
    max_adapters: int
    page_size: int = 0
    num_pages: int = 0


@dataclass(frozen=True)
class OpenSequences:
    """One adapter's sequences that have not ended.

    Args:
        running: those that hold cache pages.
        waiting: those that do not yet.
        generated: tokens that they have made.
    """

    running: int = 0
    waiting: int = 0
    generated: int = 0


class Observer:
    """Receives what happened, and ignores what a subclass does not override.

    Its methods must be quick and must not raise.
    """

    def on_background(self, num_running: int, num_waiting: int) -> None:
        """The background has so many sequences or inputs that run, and that wait."""

    def on_batch_request(self, is_good: bool) -> None:
        """A batch's request was answered."""

    def on_step(self, stats: StepStats) -> None:
        """One engine step is done."""

    def on_queue(self, num_running: int, num_waiting: int) -> None:
        """The loop has nothing to compute: so many sequences are held or wait all the same."""

    def on_cache(self, stats: CacheStats) -> None:
        """A cache has changed."""

    def on_load(self, stats: LoadStats) -> None:
        """An adapter was loaded."""

    def on_load_failed(self, fault: LoadFault) -> None:
        """An adapter could not be brought into memory."""

    def on_disk(self, free_bytes: int | None, reserve_bytes: int) -> None:
        """The disk has so much room, None if it does not say; requests leave the reserve free."""

    def on_placed(self, stats: PlanStats) -> None:
        """A sequence was given its mode."""

    def on_first_token(self, seconds: float, queue_s: float, adapter: str = "") -> None:
        """A sequence got its first token, `seconds` after its arrival, `queue_s` of it waiting.

        `adapter` is its adapter's name; empty for the base.
        """

    def on_next_token(self, seconds: float) -> None:
        """A sequence got another token, `seconds` after the one before."""

    def on_request(self, route: str, status: int, seconds: float) -> None:
        """An HTTP request was answered to its end; `route` is the path's template."""

    def on_accepted(self, stats: AcceptedStats) -> None:
        """A sequence was accepted, or a request of a base that answers in one pass."""

    def on_ended(self, adapter: str, generated_tokens: int) -> None:
        """A sequence has ended, whatever for."""

    def on_adapter(self, name: str) -> None:
        """A generation was accepted for the adapter `name`."""

    def on_registry(self, op: str, seconds: float, ok: bool) -> None:
        """A registry operation ended."""

    def on_canary(self, ok: bool) -> None:
        """The canary has passed or failed."""

    def on_rows(self, hold: bool) -> None:
        """Whether an answer's bits do not depend on its neighbours was measured."""

    def on_recording(self, ok: bool) -> None:
        """Steps are recorded on this GPU from now on, or not any more."""
