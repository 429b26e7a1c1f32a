"""A TCP proxy that a test can have pass or stall: what a broken network does to connections."""

import socket
import threading
from contextlib import suppress
from pathlib import Path


class StallingProxy:
    """Listens on a port of its own and passes connections on to a Unix socket.

    While it stalls it accepts and takes bytes, and nothing arrives on the other side.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._passes = threading.Event()
        self._passes.set()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def stall(self) -> None:
        self._passes.clear()

    def go_on(self) -> None:
        """Pass again; the stalled connections are cut, as a firewall forgets them."""
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._passes.set()

    def close(self) -> None:
        self.go_on()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(str(self._target))
                self._open += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                self._passes.wait()
                target.sendall(data)
        for each in (source, target):
            each.close()
