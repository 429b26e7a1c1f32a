"""A real Redis whose data a test can take away, put back or exchange."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import redis

from registry.redis.client import open_client
from waiting import until

REDIS = Path("/usr/bin/redis-server")


class RedisSite:
    """A Redis on a Unix socket; its data are in one file that is written when asked for.

    Args:
        folder: of its own; made here.
        variables: of its environment, beside this process's.
        binary: the server's program.
    """

    def __init__(
        self,
        folder: Path,
        variables: Mapping[str, str] | None = None,
        binary: Path = REDIS,
    ) -> None:
        self._binary = binary
        self.folder = folder
        self._variables = variables or {}
        self._copies = 0
        folder.mkdir()
        self.start()

    @property
    def place(self) -> Path:
        return self.folder / "redis.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.place}"

    def start(self) -> None:
        words = ["--port", "0", "--unixsocket", str(self.place), "--dir", str(self.folder)]
        command = [str(self._binary), *words, "--save", "", "--dbfilename", "dump.rdb"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, env={**os.environ, **self._variables}
        )
        try:
            with open_client(self.url) as client:
                until(lambda: _has_loaded(client))
        except BaseException:
            self.kill()
            raise

    def copy(self) -> Path:
        """Return a file with the data as they are now."""
        with open_client(self.url) as client:
            client.save()
        self._copies += 1
        made = self.folder / f"copy-{self._copies}.rdb"
        shutil.copy(self.folder / "dump.rdb", made)
        return made

    def restart_with(self, copy: Path | None) -> None:
        """Kill it and start it with the data of a file, or with none."""
        self.kill()
        (self.folder / "dump.rdb").unlink(missing_ok=True)
        if copy is not None:
            shutil.copy(copy, self.folder / "dump.rdb")
        self.start()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)
        self.place.unlink(missing_ok=True)


def _has_loaded(client: redis.Redis) -> bool:
    """Whether it answers with its data; its socket is there before it listens."""
    try:
        return bool(client.info("persistence")["loading"] == 0)
    except redis.ConnectionError:
        return False
