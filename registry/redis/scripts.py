"""The registry's Lua scripts on one Redis client, each one transaction.

A script that the server does not know, after a restart for one, is sent again by redis-py.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any

import redis

from registry.errors import RegistryFull, RegistryUnavailable
from registry.redis.client import FAULTS, EmbeddedClient

#: How a server refuses writes because of its disk or its memory.
_FULL = ("MISCONF", "OOM")
#: How it does where it has too few replicas; the embedded one: on a full disk (embedded.py).
_NO_REPLICAS = "NOREPLICAS"
#: How it does where the user or its ACL was changed; of a command within a script in words alone,
#: those of Redis 7 and later, and those before.
_REFUSED = (redis.AuthenticationError, redis.exceptions.NoPermissionError)
_REFUSED_WITHIN = ("ACL failure in script", "can't run this command")

Observer = Callable[[str, float, bool], None]

SCRIPTS = (
    "publish",
    "move_alias",
    "rollback",
    "delete",
    "resolve",
    "entry",
    "versions",
    "page",
    "share",
    "digest_is_live",
    "job_create",
    "job_claim",
    "job_move",
    "job_report",
    "job_page",
    "file_put",
    "batch_create",
    "batch_claim",
    "batch_move",
    "batch_report",
    "pair",
    "known",
    "key_create",
    "key_rotate",
    "key_move",
    "key_revoke",
    "limits_put",
    "rates",
    "stocks",
    "snapshot",
    "tenant_move",
    "adapter_move",
    "workers",
)

#: Scripts that count or change what a tenant has; the functions of held.lua stand before their own
#: lines.
_COUNTING = frozenset(
    {
        "publish",
        "delete",
        "job_create",
        "file_put",
        "batch_move",
        "stocks",
        "tenant_move",
        "adapter_move",
    }
)


class Scripts:
    """Runs the files of `lua/` by name; safe to use from many threads.

    Args:
        client: answers bytes (`decode_responses=False`) and has socket timeouts.
        observer: called after every exchange: script, seconds, and whether the server answered.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        client: redis.Redis,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._full = (*_FULL, *([_NO_REPLICAS] if isinstance(client, EmbeddedClient) else []))
        self._observer = observer
        self._clock = clock
        self._scripts = {name: client.register_script(_text(name)) for name in SCRIPTS}

    def run(self, op: str, touched: Sequence[str], args: Sequence[str | bytes | int] = ()) -> Any:
        """Return the reply of the script `op`, in bytes, integers and lists.

        Raises:
            RegistryUnavailable: no answer in time, no connection, or the server refused.
        """
        with self.asking(op):
            return self._scripts[op](keys=touched, args=args)

    @contextmanager
    def asking(self, op: str) -> Iterator[None]:
        """Observe a plain command, and raise its faults as the registry's errors."""
        started, answered = self._clock(), False
        try:
            yield
            answered = True
        except FAULTS as error:
            raise _named(error, self._full) from error
        finally:
            if self._observer is not None:
                self._observer(op, self._clock() - started, answered)


def _named(error: Exception, full: tuple[str, ...]) -> RegistryUnavailable:
    """Return a fault of the connection, or a refusal, as an error of the registry."""
    said = str(error)
    if isinstance(error, redis.OutOfMemoryError) or said.startswith(full):
        return RegistryFull(
            "the registry's disk or memory is full and nothing was written; delete what is not "
            "needed, or ask the server's operator for room"
        )
    if said.startswith(_NO_REPLICAS):
        return RegistryUnavailable(
            "the registry takes no writes while too few of its replicas are connected, and nothing "
            "was written; try again shortly"
        )
    if isinstance(error, _REFUSED) or any(part in said for part in _REFUSED_WITHIN):
        return RegistryUnavailable(
            "the registry refuses this program's user, or something that it needs: its operator "
            "finds in docs/operations.md what the user's ACL has to allow"
        )
    return RegistryUnavailable("the registry does not answer; try again shortly")


def _text(name: str) -> bytes:
    folder = resources.files("registry.redis").joinpath("lua")
    parts = ["held", name] if name in _COUNTING else [name]
    return b"".join(folder.joinpath(f"{part}.lua").read_bytes() for part in parts)
