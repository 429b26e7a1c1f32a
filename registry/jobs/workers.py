"""The list of live workers: each reports now and then, timed by the registry's own clock.

For people and metrics alone. Whether a job's worker is lost is decided by the job's own heartbeats
(claims.py), so an entry that is missing here has no effect on jobs.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

import redis

from registry.errors import CorruptRecord
from registry.redis import keys
from registry.redis.scripts import Observer, Scripts

#: A worker without a report for so long is not listed.
ALIVE_S = 30.0


@dataclass(frozen=True)
class WorkerRecord:
    """One worker.

    Args:
        name: tells it from all others: host and process id.
        base_name: for which it takes jobs.
        device: on which it trains.
        started_at: in seconds since 1970, by its own clock.
        job: the id of the job that it holds, if it holds one.
    """

    name: str
    base_name: str
    device: str
    started_at: float
    job: str | None = None


class Workers:
    """The workers of a registry; safe to use from many threads.

    Every method raises `RegistryUnavailable` when the server does not answer.

    Args:
        client: answers bytes and has socket timeouts.
        observer: called after every exchange.
    """

    def __init__(self, client: redis.Redis, observer: Observer | None = None) -> None:
        self._scripts = Scripts(client, observer)

    def beat(self, record: WorkerRecord) -> None:
        """Store a worker's report: it is alive, and which job it holds."""
        self._run("beat", record.name, json.dumps(asdict(record)))

    def leave(self, name: str) -> None:
        """Remove a worker that ends. Harmless if it is not listed."""
        self._run("leave", name)

    def alive(self) -> list[WorkerRecord]:
        """Return the workers with a recent report, by name.

        Raises:
            CorruptRecord: a stored one is not what this program writes.
        """
        found = [_read(body) for body in self._run("list")]
        return sorted(found, key=lambda each: each.name)

    def _run(self, op: str, *words: str) -> Any:
        touched = [keys.WORKERS, keys.WORKERS_SEEN]
        return self._scripts.run("workers", touched, [op, repr(ALIVE_S), *words])


def _read(stored: bytes) -> WorkerRecord:
    try:
        given = json.loads(stored)
        known = {name: given[name] for name in WorkerRecord.__dataclass_fields__}
        return WorkerRecord(**known)
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptRecord(f"{keys.WORKERS} holds what is no worker's record") from error
