"""A registry that cannot be used as it is set is refused within seconds, with the reason."""

import errno
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis

from registry.connect import check_answers, connect
from registry.errors import RegistryUnusable
from registry.redis.address import EMBEDDED
from registry.redis.client import TIMEOUT_S, open_client
from registry.redis.embedded import find_binary
from registry.redis.reach import reach, reason_of
from waiting import until

PASSWORD = "correct"


@pytest.fixture(scope="module")
def port(tmp_path_factory) -> Iterator[int]:
    """A server with a password, on a port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = str(tmp_path_factory.mktemp("server"))
    words = ["--port", str(port), "--bind", "127.0.0.1", "--requirepass", PASSWORD, "--save", ""]
    command = [str(find_binary()), *words, "--dir", folder]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    with open_client(f"redis://:{PASSWORD}@127.0.0.1:{port}") as client:
        until(lambda: answers(client))
    yield port
    process.kill()
    process.wait()


def answers(client: redis.Redis) -> bool:
    with suppress(redis.RedisError):
        return bool(client.ping())
    return False


def refusal(url: str, folder: Path, patience_s: float = 0.3) -> str:
    """Return with which words a start on this registry ends."""
    started = time.monotonic()
    with connect(url, folder) as registry, pytest.raises(RegistryUnusable) as caught:
        registry.open_store(patience_s)
    assert time.monotonic() - started < patience_s + TIMEOUT_S + 3
    return caught.value.message


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("redis://:wr0ng@127.0.0.1:{port}", "refuses the user or the password"),
        ("redis://nobody:correct@127.0.0.1:{port}", "refuses the user or the password"),
        ("redis://127.0.0.1:{port}", "wants one and none is set"),
        ("redis://:correct@127.0.0.1:{port}/99", "no database with the URL's number"),
        ("redis://:correct@127.0.0.1:1", "nothing listens at its address"),
        ("redis://:correct@nowhere.invalid:{port}", "name cannot be resolved"),
        ("rediss://:correct@127.0.0.1:{port}", "takes no rediss://"),
        ("unix:///nowhere/at/all.sock?password=correct", "its socket is not there"),
    ],
)
def test_each_wrong_setting_has_its_reason(port, tmp_path, place, reason):
    said = refusal(place.format(port=port), tmp_path)

    assert reason in said
    assert "correct@" not in said
    assert "=correct" not in said
    assert "wr0ng" not in said
    assert not list((tmp_path / "blobs").glob("store.json"))


def test_the_right_password_is_let_in(port, tmp_path):
    with connect(f"redis://:{PASSWORD}@127.0.0.1:{port}/3", tmp_path) as registry:
        registry.open_store(0)
        assert registry.ownership.standing().is_settled


def test_a_server_that_takes_connections_and_says_nothing_is_given_up(tmp_path):
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        said = refusal(f"redis://127.0.0.1:{mute.getsockname()[1]}", tmp_path)
    assert "does not answer in time" in said


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"hello\r\n"])
def test_what_is_no_registry_is_said(tmp_path, answer):
    with speaking(lambda wire: wire.sendall(answer)) as port:
        said = refusal(f"redis://127.0.0.1:{port}", tmp_path)
    assert "does not answer as a registry does" in said


def test_a_certificate_of_an_unknown_authority_is_refused_and_of_a_named_one_taken(tmp_path, port):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    with encrypted(port, tmp_path) as encrypted_port:
        url = f"rediss://:{PASSWORD}@localhost:{encrypted_port}/4"
        assert "certificate is not trusted" in refusal(url, tmp_path)
        authority = f"ssl_ca_certs={tmp_path / 'certificate'}"
        with connect(f"{url}?{authority}", tmp_path) as registry:
            registry.open_store(0)
        other = f"rediss://:{PASSWORD}@127.0.0.1:{encrypted_port}/4?{authority}"
        assert "another host's" in refusal(other, tmp_path)
        plain = f"redis://:{PASSWORD}@localhost:{encrypted_port}"
        assert "perhaps it wants rediss://" in refusal(plain, tmp_path)


def test_what_may_pass_is_waited_for_and_what_will_not_is_not():
    class Starting:
        def __init__(self, *faults):
            self.faults = list(faults)

        def exists(self, key):
            if self.faults:
                raise self.faults.pop(0)

    waits, now = [], [0.0]

    def wait(seconds):
        waits.append(seconds)
        now[0] += seconds

    refused = redis.ConnectionError()
    refused.__cause__ = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    reach(Starting(refused, redis.BusyLoadingError(), refused), "x", 5.0, lambda: now[0], wait)
    assert len(waits) == 3
    waits.clear()
    with pytest.raises(RegistryUnusable, match="nothing listens"):
        reach(Starting(*[refused] * 1000), "x", 5.0, lambda: now[0], wait)
    assert 4 < sum(waits) <= 5
    waits.clear()
    with pytest.raises(RegistryUnusable, match="the password"):
        reach(Starting(redis.AuthenticationError()), "x", 5.0, lambda: now[0], wait)
    assert waits == []


def test_a_look_before_a_start_tells_at_once_of_a_registry_that_it_waits_for(port):
    told: list[str] = []
    check_answers(EMBEDDED, told.append)
    check_answers(f"redis://:{PASSWORD}@127.0.0.1:{port}", told.append)
    with pytest.raises(RegistryUnusable, match="the user or the password"):
        check_answers(f"redis://:wr0ng@127.0.0.1:{port}", told.append)
    assert told == []
    with pytest.raises(RegistryUnusable, match="nothing listens"):
        check_answers("redis://:correct@127.0.0.1:1", told.append, patience_s=0.1)
    (line,) = told
    assert line.startswith("the registry redis://:***@127.0.0.1:1 cannot be used: nothing listens")


def test_a_registry_that_starts_meanwhile_is_found(tmp_path):
    place = tmp_path / "redis.sock"
    words = ["--port", "0", "--unixsocket", str(place), "--dir", str(tmp_path), "--save", ""]
    started: list[subprocess.Popen[bytes]] = []

    def start(line: str) -> None:
        command = [str(find_binary()), *words]
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))

    try:
        check_answers(f"unix://{place}", start, patience_s=30)
        assert len(started) == 1
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_a_reason_holds_no_address(tmp_path):
    for fault in (socket.gaierror(-2, "x.example"), FileNotFoundError(2, "a", "/secret/path")):
        assert "secret" not in reason_of(fault).text
        assert "example" not in reason_of(fault).text


@contextmanager
def speaking(talk: Callable[[socket.socket], object]) -> Iterator[int]:
    """Listen on a port, and answer every connection."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def serve() -> None:
            with suppress(OSError):
                while True:
                    wire, _ = listener.accept()
                    threading.Thread(target=_talk, args=(talk, wire), daemon=True).start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def _talk(talk: Callable[[socket.socket], object], wire: socket.socket) -> None:
    with suppress(OSError), wire:
        talk(wire)


@contextmanager
def encrypted(port: int, folder: Path) -> Iterator[int]:
    """Pass TLS connections for `localhost` on to a plain port; the certificate lies in `folder`."""
    names = ["-keyout", str(folder / "key"), "-out", str(folder / "certificate")]
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    made += ["-nodes", "-days", "2", "-subj", "/CN=localhost", *names]
    made += ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(made, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate", folder / "key")

    def forward(wire: socket.socket) -> None:
        with (
            context.wrap_socket(wire, server_side=True) as outside,
            socket.create_connection(("127.0.0.1", port)) as inside,
        ):
            back = threading.Thread(target=_pump, args=(inside, outside), daemon=True)
            back.start()
            _pump(outside, inside)
            back.join(5)

    with speaking(forward) as place:
        yield place


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
