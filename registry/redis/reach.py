"""Why a registry cannot be reached, in words, and whether waiting may help."""

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import redis
from redis.exceptions import ClusterDownError, MovedError, RedisClusterException
from redis.sentinel import MasterNotFoundError

from registry.errors import RegistryUnusable
from registry.redis import keys
from registry.redis.client import FAULTS

FIRST_WAIT_S, LAST_WAIT_S = 0.05, 0.5
#: A registry that is started at the same time may take so long to answer.
PATIENCE_S = 5.0


@dataclass(frozen=True)
class Reason:
    """Why there was no answer.

    Args:
        text: for callers too: no address and no secret.
        may_pass: asking again may help.
    """

    text: str
    may_pass: bool


def reason_of(error: BaseException) -> Reason:
    """Return what a fault of the client means, by its first cause."""
    chain = list(_chain(error))
    for kind, reason in _REASONS:
        if any(isinstance(each, kind) for each in chain):
            return reason
    for words, reason in _ANSWERS:
        if any(words in str(each) for each in chain):
            return reason
    return Reason("it does not answer as a registry does", False)


def reach(
    client: redis.Redis,
    shown: str,
    patience_s: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], object] = time.sleep,
) -> None:
    """Return as soon as the registry answers.

    Args:
        client: tries to connect.
        shown: the registry's URL without its password.
        patience_s: for faults that may pass; others raise at once.
        clock: seconds that only go forward.
        wait: waits so many seconds.

    Raises:
        RegistryUnusable: it does not; the message says why.
    """
    deadline, wait_s = clock() + patience_s, FIRST_WAIT_S
    while True:
        try:
            client.exists(keys.IDENTITY)  # of a cluster's nodes the one that is needed
            return
        except (*FAULTS, OSError, ValueError) as error:
            reason = reason_of(error)
            if not reason.may_pass or clock() + wait_s > deadline:
                message = f"the registry {shown} cannot be used: {reason.text}"
                raise RegistryUnusable(message, reason.may_pass) from error
        wait(wait_s)
        wait_s = min(2 * wait_s, LAST_WAIT_S)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


_SILENT = Reason(
    "it does not answer in time: a wrong address, a busy server, or one that takes no rediss://",
    True,
)
#: The first that fits is taken: subclasses before their bases.
_REASONS: tuple[tuple[type[BaseException], Reason], ...] = (
    (
        ssl.SSLCertVerificationError,
        Reason(
            "its certificate is not trusted or is another host's: name its CA in the URL "
            "(?ssl_ca_certs=FILE), or correct the host",
            False,
        ),
    ),
    (ssl.SSLError, Reason("no TLS connection comes about: does it take rediss:// at all?", False)),
    (
        redis.AuthenticationError,
        Reason("it refuses the user or the password, or wants one and none is set", False),
    ),
    (
        redis.exceptions.NoPermissionError,
        Reason("the user may not do what is needed: see its ACL in docs/operations.md", False),
    ),
    (
        MasterNotFoundError,
        Reason(
            "its Sentinels do not answer, refuse the user or the password, or know no master of "
            "the URL's service",
            True,
        ),
    ),
    (MovedError, Reason("it is a node of a cluster: use redis+cluster://", False)),
    (ClusterDownError, Reason("its cluster has no master for the registry's keys", True)),
    (redis.BusyLoadingError, Reason("it is still loading its data", True)),
    (socket.gaierror, Reason("its host's name cannot be resolved", True)),
    (ConnectionRefusedError, Reason("nothing listens at its address", True)),
    (FileNotFoundError, Reason("its socket is not there, or a file that the URL names", True)),
    (PermissionError, Reason("its socket may not be opened by this user", False)),
    (TimeoutError, _SILENT),
    (redis.TimeoutError, _SILENT),
    (RedisClusterException, Reason("no node answers as one of a cluster does", True)),
)
#: By the text of an answer, where its class is too general.
_ANSWERS: tuple[tuple[str, Reason], ...] = (
    ("DB index is out of range", Reason("it has no database with the URL's number", False)),
    ("Connection closed", Reason("it ends the connection: perhaps it wants rediss://", True)),
    ("Connection reset", Reason("it ends the connection: perhaps it wants rediss://", True)),
    ("Network is unreachable", Reason("its network cannot be reached", True)),
    ("No route to host", Reason("its host cannot be reached", True)),
)
