"""How much a tenant has of what limits count; checked where it grows: adapters, files, jobs."""

from dataclasses import dataclass

import redis

from registry.redis import keys
from registry.redis.scripts import Observer, Scripts


@dataclass(frozen=True)
class Held:
    """What a tenant has, by the names of its limits.

    Args:
        adapters: names.
        adapter_bytes: of coefficients, in all versions.
        files: uploaded, and results of batches.
        file_bytes: of them.
        jobs: of training, that have not ended.
    """

    adapters: int
    adapter_bytes: int
    files: int
    file_bytes: int
    jobs: int


class Stocks:
    """The holdings behind one Redis client; safe to use from many threads.

    Args:
        client: answers bytes and has socket timeouts.
        observer: called after every exchange: operation, seconds, and whether the server answered.
    """

    def __init__(self, client: redis.Redis, observer: Observer | None = None) -> None:
        self._scripts = Scripts(client, observer)

    def of(self, tenant: str, space: str) -> Held:
        """Return what a tenant has, with the adapters of its space of names.

        Raises:
            RegistryUnavailable: the registry does not answer.
        """
        touched = [keys.FILES, keys.FILES_OF + tenant, keys.JOBS_OF + tenant, keys.names(space)]
        args = [keys.JOBS_IN_STATE, keys.records("")]
        return Held(*map(int, self._scripts.run("stocks", touched, args)))
