"""The socket on which a server listens, opened before the base is loaded."""

import errno
import socket

from adapters_core.starting import CannotStart
from server.settings import Settings

_HOST = (
    "Give one of this machine's own with --host: 127.0.0.1 for this machine alone, "
    "0.0.0.0 for all that can reach it"
)
#: Error -> what it means, and what to do about it.
_FAULTS = {
    errno.EADDRINUSE: ("another program listens there", "End it, or give another {flag}"),
    errno.EACCES: ("ports below 1024 are the system's", "Give another {flag}"),
    errno.EADDRNOTAVAIL: ("this machine has no such address", _HOST),
}


def open_listeners(settings: Settings) -> list[socket.socket]:
    """Return the sockets of a server: the first has the API, the second one the load's page.

    Raises:
        CannotStart: one cannot be opened; none is open then.
    """
    opened = [open_listener(settings.host, settings.port)]
    if settings.load_port is not None:
        try:
            opened.append(open_listener(settings.host, settings.load_port, "--load-port"))
        except CannotStart:
            opened[0].close()
            raise
    return opened


def open_listener(host: str, port: int, flag: str = "--port") -> socket.socket:
    """Return a listening socket, which the caller closes.

    Raises:
        CannotStart: it cannot be opened; the message says whether to change host or port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named explicitly: only then asyncio turns Nagle's algorithm off on accepted connections.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except (socket.gaierror, UnicodeError) as error:
        listener.close()
        raise CannotStart(f"cannot listen on {host!r}: no such host is known", _HOST) from error
    except OSError as error:
        listener.close()
        why, step = _FAULTS.get(error.errno or 0, (error.strerror, "See --host and --port"))
        step = step.format(flag=flag)
        raise CannotStart(f"cannot listen on {host} port {port}: {why}", step) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Return where a program on this machine reaches the socket."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
