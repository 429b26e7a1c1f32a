"""The statistics of one step of the engine, and the load that it leaves."""

from collections.abc import Sequence

from server.adapters.residency import Entry
from server.scheduling.scheduler import Scheduler
from server.scheduling.sequence import TokenSequence
from server.scheduling.step import Batch, Work
from server.telemetry.activity import AcceptedStats
from server.telemetry.observer import OpenSequences, ServingLoad, StepStats


def stats_of(batch: Batch, scheduler: Scheduler, seconds: float) -> StepStats:
    """Return the statistics of a step that took `seconds`."""
    leases = [work.sequence.lease for work in batch.works]
    keys = {lease.key for lease in leases if isinstance(lease, Entry)}
    modes: set[str] = {mode for _, mode in keys}
    modes |= {"base"} if None in leases else set()
    return StepStats(
        seconds=seconds,
        mode=modes.pop() if len(modes) == 1 else "mixed",
        num_rows=batch.num_rows,
        num_adapters=len(keys),
        num_running=len(scheduler.running),
        num_waiting=len(scheduler.waiting),
        prompt_tokens=sum(work.stop - work.start for work in batch.prefill),
        generated_tokens=sum(work.samples for work in batch.works),
        cached_tokens=sum(work.sequence.num_cached for work in batch.prefill if _is_first(work)),
        num_preemptions=scheduler.num_preemptions,
    )


def load_of(sequences: Sequence[TokenSequence], scheduler: Scheduler) -> ServingLoad:
    """Return the load of open sequences; those of batches give way, so they are no load."""
    live = [sequence for sequence in sequences if not sequence.is_background]
    running = [sequence for sequence in live if sequence.pages]
    waiting = [sequence for sequence in live if not sequence.pages]
    return ServingLoad(
        running=_adapters(running),
        waiting=_adapters(waiting),
        num_running=len(running),
        num_waiting=len(waiting),
        kv_usage=scheduler.kv_usage,
        max_adapters=scheduler.max_running,
        page_size=scheduler.page_size,
        num_pages=scheduler.num_pages,
    )


def accepted(sequence: TokenSequence, mode: str | None) -> AcceptedStats:
    """Return what is told of a sequence that was accepted."""
    digest = sequence.lease.digest if isinstance(sequence.lease, Entry) else ""
    return AcceptedStats(sequence.adapter, digest, mode, len(sequence.prompt))


def open_sequences(sequences: Sequence[TokenSequence]) -> dict[str, OpenSequences]:
    """Return the sequences that have not ended by their adapter, the empty name for the base."""
    found: dict[str, OpenSequences] = {}
    for sequence in sequences:
        before, is_running = found.get(sequence.adapter, OpenSequences()), bool(sequence.pages)
        found[sequence.adapter] = OpenSequences(
            before.running + is_running,
            before.waiting + (not is_running),
            before.generated + sequence.num_asked_for,
        )
    return found


def _adapters(sequences: Sequence[TokenSequence]) -> frozenset[str]:
    return frozenset(sequence.adapter for sequence in sequences if sequence.adapter)


def _is_first(work: Work) -> bool:
    """Return whether this is a sequence's first piece."""
    return work.start == work.sequence.num_cached and not work.sequence.num_preempted
