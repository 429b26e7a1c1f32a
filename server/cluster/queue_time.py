"""How long requests wait in a replica, and how many replicas that calls for. Pure."""

from collections.abc import Sequence
from typing import Any

#: The name under which replicas report it.
QUEUE_S = "queue_s"
_SUM, _COUNT = "overtone_queue_seconds_sum", "overtone_queue_seconds_count"
_WAITING = "overtone_requests_waiting"
#: Replicas are at most doubled at a time: new ones must load the base before they help.
_MOST_GROWTH = 2.0
#: One is given up where requests wait less than this part of the target.
_IDLE = 0.25


class QueueTime:
    """Mean seconds that requests waited between one look at a server's metrics and the next."""

    def __init__(self) -> None:
        self._sum = self._count = self._seconds = 0.0
        self._at: float | None = None

    def take(self, metrics: str, now: float) -> float:
        """Return the mean of the requests that began since the last look.

        While some wait and none begins, it is at least the time since one did.

        Args:
            metrics: in Prometheus' text format.
            now: seconds on any clock that only grows.
        """
        total, count = _sample(metrics, _SUM), _sample(metrics, _COUNT)
        if self._at is None or count > self._count:
            begun = count - self._count
            self._seconds = (total - self._sum) / begun if begun and self._at is not None else 0.0
            self._at = now
        elif _sample(metrics, _WAITING):
            self._seconds = max(self._seconds, now - self._at)
        else:
            self._seconds, self._at = 0.0, now
        self._sum, self._count = total, count
        return self._seconds


def _sample(metrics: str, name: str) -> float:
    """Return the value of a sample without labels; 0 if there is none."""
    found = (line.split() for line in metrics.splitlines() if line.startswith(f"{name} "))
    return next((float(line[1]) for line in found), 0.0)


def wanted(current: int, waits: Sequence[float], target_s: float) -> float:
    """Return how many replicas there should be.

    Args:
        current: how many there are.
        waits: mean queue time of each that reports one.
        target_s: what requests may wait.
    """
    if not waits:
        return current
    mean_s = sum(waits) / len(waits)
    if mean_s > target_s:
        return current * min(mean_s / target_s, _MOST_GROWTH)
    return max(1, current - 1) if mean_s < _IDLE * target_s else current


class QueueTimePolicy:
    """Ray Serve's autoscaling policy: by the time that requests wait in replicas.

    Args:
        target_s: what they may wait.
    """

    def __init__(self, target_s: float) -> None:
        self._target_s = target_s

    def __call__(self, ctx: Any) -> tuple[float, dict[str, Any]]:
        """Return the wanted number of replicas and no state."""
        waits = (ctx.aggregated_metrics or {}).get(QUEUE_S, {})
        return wanted(ctx.current_num_replicas, list(waits.values()), self._target_s), {}
