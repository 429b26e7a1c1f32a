"""moto's server of S3, in a process and an environment of its own (`./run test` makes it)."""

import secrets
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from redis_shapes import free_port
from waiting import until

#: Its libraries have other ideas of versions than the project's, as those of clients have.
PROGRAM = Path(sys.prefix) / "s3" / "bin" / "moto_server"


class S3Server:
    """A server that forgets everything when it ends.

    Args:
        num_free: requests that need no right; afterwards every signature is checked. None: all.
    """

    def __init__(self, num_free: int | None = None) -> None:
        if not PROGRAM.exists():
            pytest.skip("needs moto's server: ./run test makes its environment")
        self.port, self._num_free = free_port(), num_free
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    @property
    def variables(self) -> dict[str, str]:
        """What S3's clients read of the environment."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }

    def start(self) -> None:
        free = {} if self._num_free is None else {"INITIAL_NO_AUTH_ACTION_COUNT": self._num_free}
        self._process = subprocess.Popen(
            [str(PROGRAM), "-H", "127.0.0.1", "-p", str(self.port)],
            env={name: str(value) for name, value in free.items()},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._first = until(self._made)
        except BaseException:
            self.close()
            raise

    def bucket(self) -> str:
        """Return the name of a new bucket."""
        name, self._first = self._first or self._made(), ""
        return name

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _made(self) -> str:
        name = f"bucket-{secrets.token_hex(4)}"
        asking = urllib.request.Request(f"{self.url}/{name}", method="PUT")
        try:
            urllib.request.urlopen(asking, timeout=5).close()
        except OSError:
            return ""
        return name
