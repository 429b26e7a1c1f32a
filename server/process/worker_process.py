"""`serve --with-worker`: a trainer worker in a process of its own.

It has a lower priority than serving (nice, few threads), is started again when it ends by itself,
and ends with the server: by SIGTERM when the server stops, by the kernel when it is killed.
"""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from registry.common.die_with_parent import tied
from server.settings import Settings

_LOG = logging.getLogger("overtone")

#: A program of its own: the server starts it by name and imports nothing of it.
_MODULE = "trainer.worker.commands"
_LOOK_S = 0.25
_FIRST_WAIT_S, _LAST_WAIT_S, _LONG_LIFE_S = 1.0, 60.0, 60.0


class WorkerProcess:
    """A worker that runs until `close`.

    Args:
        settings: of the server; the worker has the same base, registry and store.
        is_stopping: whether the server goes down; polled.
    """

    def __init__(self, settings: Settings, is_stopping: Callable[[], bool]) -> None:
        self._settings, self._is_stopping = settings, is_stopping
        self._closing = threading.Event()
        self._guard = threading.Lock()  # guards _process against a start while closing
        self._process: subprocess.Popen[bytes] | None = None
        # On Linux the worker dies with the thread that starts it: this one, which lives as long.
        self._thread = threading.Thread(target=self._supervise, name="worker", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """Return the worker's process id, if one runs."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def close(self) -> None:
        """Stop the worker: it has the grace to write a checkpoint and give its job back."""
        self._begin_to_close()
        self._thread.join(self._settings.grace_s)
        if self._thread.is_alive() and self._process is not None:
            _LOG.warning("the worker did not end in time; its job is taken back later")
            self._process.kill()
            self._thread.join()

    def _begin_to_close(self) -> None:
        with self._guard:
            if not self._closing.is_set() and self._process is not None:
                self._process.terminate()
            self._closing.set()

    def _supervise(self) -> None:
        wait_s = _FIRST_WAIT_S
        while (process := self._start()) is not None:
            started = time.monotonic()
            code = self._end_of(process)
            if self._closing.is_set():
                return
            wait_s = _FIRST_WAIT_S if time.monotonic() - started > _LONG_LIFE_S else wait_s
            _LOG.warning("the worker ended with %d; it is started again in %g s", code, wait_s)
            self._closing.wait(wait_s)
            wait_s = min(2 * wait_s, _LAST_WAIT_S)

    def _end_of(self, process: "subprocess.Popen[bytes]") -> int:
        """Wait for the worker's end and return its exit code; stop it when the server stops."""
        while True:
            try:
                return process.wait(_LOOK_S)
            except subprocess.TimeoutExpired:
                if self._is_stopping():
                    self._begin_to_close()

    def _start(self) -> "subprocess.Popen[bytes] | None":
        with self._guard:
            if self._closing.is_set():
                return None
            self._process = subprocess.Popen(
                _command(),
                stdin=subprocess.DEVNULL,
                env={**os.environ, **_variables(self._settings)},
                start_new_session=True,  # Ctrl-C ends us first, and we end it
            )
            return self._process


def _command() -> list[str]:
    """Return the worker's command line; without arguments, which all users could read."""
    return tied([sys.executable, "-m", _MODULE])


def _variables(settings: Settings) -> dict[str, str]:
    """Return the worker's settings; a registry's URL may hold a password, so none is a flag."""
    password = settings.registry_password
    given = {
        "BASE": settings.base,
        "BASE_NAME": settings.base_name,
        "REGISTRY": settings.registry,
        "REGISTRY_PASSWORD": password and password.get_secret_value(),
        "REGISTRY_PASSWORD_FILE": settings.registry_password_file,
        "DATA": settings.data,
        "STORE": settings.store,
        "STORE_CACHE_BYTES": settings.store_cache_bytes,
        "DEVICE": settings.device,
        "WORKER_THREADS": settings.worker_threads,
        "WORKER_NICE": settings.worker_nice,
    }
    return {f"OVERTONE_{name}": str(v) for name, v in given.items() if v is not None}
