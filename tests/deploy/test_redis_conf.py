"""deploy/redis.conf does in a real Redis what its comments say."""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import yaml

from registry.redis.embedded import find_binary

ROOT = Path(__file__).parents[2]
CONF = ROOT / "deploy" / "redis.conf"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
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


def test_composes_command_starts_it_with_the_password_and_none_in_its_arguments(
    tmp_path: Path,
) -> None:
    """Any server of the family will do: the embedded one is always there."""
    socket, secret = tmp_path / "redis.sock", "a1-%$#b2"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "redis-server").symlink_to(find_binary())
    conf = tmp_path / "redis.conf"
    conf.write_text(f"{CONF.read_text()}\nport 0\nunixsocket {socket}\ndir {tmp_path}\n")
    words = [
        word.replace("$$", "$").replace("/usr/local/etc/redis/redis.conf", str(conf))
        for word in COMPOSE["services"]["redis"]["command"]
    ]
    process = subprocess.Popen(
        words,
        env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "REDISCLI_AUTH": secret},
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until_up(socket, process)
        arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert b"redis-server" in arguments  # the shell has become it, so signals reach it
        assert secret.encode() not in arguments
        stranger = redis.Redis(unix_socket_path=str(socket))
        with stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        with redis.Redis(unix_socket_path=str(socket), password=secret) as client:
            assert client.ping()
    finally:
        process.terminate()
        process.wait(10)
