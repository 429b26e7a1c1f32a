"""deploy/redis.conf does in a real Redis what its comments say."""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

CONF = Path(__file__).parents[2] / "deploy" / "redis.conf"
START_TIMEOUT_S = 15.0

pytestmark = pytest.mark.redis


@pytest.fixture
def client(tmp_path: Path) -> Iterator[redis.Redis]:
    """Give a client of a server that runs with the shipped file, on a socket in `tmp_path`."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("needs Debian's redis-server")
    socket = tmp_path / "redis.sock"
    overrides = ["--port", "0", "--unixsocket", str(socket), "--dir", str(tmp_path)]
    process = subprocess.Popen([program, str(CONF), *overrides], stdout=subprocess.DEVNULL)
    try:
        wait_until_up(socket, process)
        with redis.Redis(unix_socket_path=str(socket)) as client:
            yield client
    finally:
        process.terminate()
        process.wait(10)


def wait_until_up(socket: Path, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not socket.exists():
        assert process.poll() is None, "redis-server does not accept the file"
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("forbidden", ["requirepass", "user ", "masterauth"])
def test_file_holds_no_password(forbidden: str) -> None:
    assert not re.search(f"(?m)^{forbidden}", CONF.read_text())


def test_answered_writes_are_on_the_disk_and_nothing_is_evicted(client: redis.Redis) -> None:
    settings = {
        name: client.config_get(name)[name]
        for name in ("appendonly", "appendfsync", "maxmemory-policy", "protected-mode")
    }
    assert settings == {
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
        "protected-mode": "yes",
    }
    client.set("overtone:test", "1")
    assert client.info("persistence")["aof_last_write_status"] == "ok"


def test_full_server_refuses_writes_and_keeps_what_it_has(client: redis.Redis) -> None:
    client.set("overtone:test", "kept")
    client.config_set("maxmemory", "1mb")
    with pytest.raises(redis.OutOfMemoryError):
        client.set("overtone:more", "x" * 2_000_000)
    assert client.get("overtone:test") == b"kept"
