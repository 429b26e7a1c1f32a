"""HTTP byte by byte: what no client library sends, over a plain socket."""

import json
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

_DEADLINE_S = 20.0


class Wire:
    """One connection to a server."""

    def __init__(self, url: str) -> None:
        where = urlsplit(url)
        assert where.hostname
        assert where.port
        self.host = f"{where.hostname}:{where.port}"
        self.socket = socket.create_connection((where.hostname, where.port), _DEADLINE_S)
        self._kept = b""

    def send(self, *parts: bytes) -> None:
        """Send each part in a write of its own."""
        for part in parts:
            self.socket.sendall(part)

    def says_nothing(self, seconds: float) -> bool:
        """Return whether the server sends nothing, and keeps the connection, for a while."""
        return not select.select([self.socket], [], [], seconds)[0]

    def answer(self) -> tuple[int, dict[str, str], Any]:
        """Return status, headers and the JSON or text of the next answer with a length."""
        status, headers = self.bare_head()
        length = int(headers.get("content-length", "0"))
        while len(self._kept) < length:
            self._read()
        body, self._kept = self._kept[:length], self._kept[length:]
        is_json = headers.get("content-type", "").startswith("application/json")
        return status, headers, json.loads(body) if is_json else body.decode()

    def bare_head(self) -> tuple[int, dict[str, str]]:
        """Return status and headers of the next answer, and leave what follows."""
        while b"\r\n\r\n" not in self._kept:
            self._read()
        head, _, self._kept = self._kept.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (ln.partition(": ") for ln in lines)}
        return int(first.split()[1]), headers

    def rest(self) -> bytes:
        """Return all that comes until the connection ends, in whatever way."""
        parts = [self._kept]
        try:
            while parts[-1] or len(parts) == 1:
                parts.append(self.socket.recv(1 << 20))
        except ConnectionResetError:
            pass
        return b"".join(parts)

    def is_closed(self) -> bool:
        """Wait for the server's end of the connection; nothing more may come before it."""
        try:
            return self._kept + self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def _read(self) -> None:
        data = self.socket.recv(1 << 16)
        assert data, f"the connection has ended after {self._kept!r}"
        self._kept += data


@contextmanager
def wire(url: str) -> Iterator[Wire]:
    """A connection until the block ends."""
    made = Wire(url)
    try:
        yield made
    finally:
        made.socket.close()


def head(method: str, path: str, host: str, *lines: str) -> bytes:
    """Return a request's head."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode()


def post(path: str, host: str, body: bytes, *lines: str) -> bytes:
    """Return a request with a JSON body."""
    own = ("Content-Type: application/json", f"Content-Length: {len(body)}")
    return head("POST", path, host, *own, *lines) + body
