"""A plain server, `overtone serve`, as a child process that ends with this one."""

import http.client
import logging
import os
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from registry.common.die_with_parent import tied

_LOG = logging.getLogger("overtone")
#: The program by its name: nothing of it is imported here.
_PROGRAM = [sys.executable, "-c", "from overtone_client.cli import main; main()", "serve"]
_HOST = "127.0.0.1"
_LOOK_S = 0.1
#: For what a server that was ended still does, and says.
_LAST_WORDS_S = 10.0
_LINES_KEPT = 20


class ServerEnded(Exception):
    """The server has ended before it was ready; the message ends with its last words."""


class PlainServer:
    """A server on a port of its own, on this machine's loopback.

    Args:
        settings: by name; others come from the environment.
        grace_s: how long open answers may take when it is closed.
        on_end: called from a thread if the server ends by itself after it was ready.
    """

    def __init__(
        self, settings: Mapping[str, Any], grace_s: float, on_end: Callable[[int], None]
    ) -> None:
        self._port = _free_port()
        self._environment = {**os.environ, **_variables(settings)}
        self._grace_s, self._on_end = grace_s, on_end
        self._closing, self._started = threading.Event(), threading.Event()
        self._was_ready = False
        self._said: deque[str] = deque(maxlen=_LINES_KEPT)
        self._process: subprocess.Popen[str] | None = None
        # On Linux the server dies with the thread that starts it: this one, which lives as long.
        self._thread = threading.Thread(target=self._watch, name="server", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Return where it listens."""
        return f"http://{_HOST}:{self._port}"

    def wait_until_ready(self) -> None:
        """Return once it takes requests.

        Raises:
            ServerEnded: it has ended before that.
        """
        while not self._is_ready():
            self._thread.join(_LOOK_S)
            if not self._thread.is_alive():
                raise ServerEnded(f"the server has ended while it started:\n{''.join(self._said)}")
        self._was_ready = True

    def close(self) -> None:
        """End it: open answers have the grace."""
        self._closing.set()
        self._started.wait()
        if self._process is not None:
            self._process.terminate()
            self._thread.join(self._grace_s + _LAST_WORDS_S)
            self._process.kill()
            self._thread.join()

    def _watch(self) -> None:
        try:
            self._process = subprocess.Popen(
                tied([*_PROGRAM, f"--host={_HOST}", f"--port={self._port}"]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=self._environment,
                start_new_session=True,
            )
        finally:
            self._started.set()
        listening = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        listening.start()
        code = self._process.wait()
        if not self._was_ready:
            listening.join(_LAST_WORDS_S)
        elif not self._closing.is_set():
            _LOG.error("the server has ended with %d", code)
            self._on_end(code)

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        """Pass on what the server says, into the log of this process."""
        assert process.stdout is not None
        for line in process.stdout:
            self._said.append(line)
            sys.stderr.write(line)

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection(_HOST, self._port, timeout=5)
        try:
            connection.request("GET", "/health/ready")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def _free_port() -> int:
    """Return a port that is free now; a server that finds it taken ends, and is started again."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def _variables(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return settings as the environment has them."""
    return {f"OVERTONE_{name.upper()}": _text(value) for name, value in settings.items()}


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
