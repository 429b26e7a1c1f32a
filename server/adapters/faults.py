"""A batch that raises is run again without the items that make it raise.

A failing batch is halved and run again, half by half, down to the items that fail alone: those are
at fault, and all others have their results. Running an item again must change nothing: keys and
values go into the same cells, and the next random number follows from seed and length alone. Where
memory runs out, room is made once and the same items are run again before they are halved.
"""

import logging
import traceback
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from server.adapters.out_of_memory import is_out_of_memory
from server.adapters.residency import Entry
from server.errors import FAMILIES, InternalError, OutOfMemory

T = TypeVar("T", bound=Hashable)
R = TypeVar("R")
_LOG = logging.getLogger("overtone.faults")


@dataclass(frozen=True)
class Outcome(Generic[T, R]):
    """The results of a batch: every item is in exactly one of the two.

    Args:
        results: of the items that were computed.
        faults: the exception of each other item when it ran alone.
    """

    results: Mapping[T, R]
    faults: Mapping[T, Exception]


def run_apart(
    items: Sequence[T],
    run: Callable[[Sequence[T]], Sequence[R]],
    make_room: Callable[[], None] = lambda: None,
) -> Outcome[T, R]:
    """Run items together; where that raises, in ever smaller parts.

    Args:
        items: of one batch; those that are likely to fail together are neighbours.
        run: returns a result for each item that it is given, in order; called at most
            `2 * len(items) - 1` times, and once more where memory runs out.
        make_room: gives memory back; called at most once.
    """
    results: dict[T, R] = {}
    faults: dict[T, Exception] = {}
    parts, has_made_room = [items], False
    while parts:
        part = parts.pop()
        try:
            results.update(zip(part, run(part), strict=True))
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # frames keep the failed run's tensors
            if is_out_of_memory(error) and not has_made_room:
                has_made_room = True
                make_room()
                parts.append(part)
            elif len(part) == 1:
                faults[part[0]] = error
            else:
                half = len(part) // 2
                parts += [part[half:], part[:half]]
    return Outcome(results, faults)


def errors_to_report(outcome: Outcome[T, R], lease_of: Callable[[T], object]) -> dict[T, Exception]:
    """Return the error to report for each item at fault, and log the causes.

    Args:
        outcome: of a batch.
        lease_of: returns the claim on the item's adapter; None for the base itself.
    """
    if not outcome.faults:
        return {}
    _log(outcome.faults.values(), len(outcome.results))
    leases = {id(lease): lease for lease in map(lease_of, outcome.faults)}
    is_one_adapter = len(leases) == 1 and None not in leases.values()
    count, faults = len(outcome.results), outcome.faults.values()
    is_of_memory = all(map(is_out_of_memory, faults))
    if count or is_one_adapter or is_of_memory or len(faults) == 1:
        return {i: _to_report(error, lease_of(i), count) for i, error in outcome.faults.items()}
    message = (
        f"the engine failed on all {len(outcome.faults)} inputs of a step: the base or this "
        "machine is at fault; the server's log has the cause"
    )
    return {item: InternalError(message) for item in outcome.faults}


def _to_report(error: Exception, lease: object, num_answered: int) -> Exception:
    """Return the error of one request: it names the adapter, and no internals."""
    if isinstance(error, FAMILIES):
        return error
    adapter = ""
    if isinstance(lease, Entry):
        adapter = f" with adapter {lease.digest} ({lease.mode})"
    if is_out_of_memory(error):
        return OutOfMemory(
            f"there is not enough memory for this request now, even alone{adapter}; try again, or "
            "send a shorter prompt"
        )
    others = f"; the {num_answered} others of its step are well" if num_answered else ""
    return InternalError(
        f"the engine failed on this request{adapter}{others}. The server's log has the cause"
    )


def _log(faults: Iterable[Exception], num_answered: int) -> None:
    """Write each kind of fault once."""
    kinds: dict[str, list[Exception]] = {}
    for fault in faults:
        kinds.setdefault(f"{type(fault).__name__}: {fault}", []).append(fault)
    for description, same in kinds.items():
        _LOG.error(
            "%d inputs of a step fail and end, %d others go on: %s",
            len(same),
            num_answered,
            description,
            exc_info=same[0],
        )
