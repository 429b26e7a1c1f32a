"""The statistics of one step of the engine, from its batch and the scheduler after it."""

from server.adapters.residency import Entry
from server.scheduling.scheduler import Scheduler
from server.scheduling.step import Batch, Work
from server.telemetry.observer import StepStats


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


def _is_first(work: Work) -> bool:
    """Return whether this is a sequence's first piece."""
    return work.start == work.sequence.num_cached and not work.sequence.num_preempted
