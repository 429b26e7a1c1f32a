"""Where a server cannot listen, the message says whether host or port is to be changed."""

import socket
from pathlib import Path

import pytest

from adapters_core.starting import CannotStart
from live import settings_of
from program import free_port
from server.process.listening import open_listener, open_listeners, url_of


def refusal(host: str, port: int) -> CannotStart:
    with pytest.raises(CannotStart) as caught:
        open_listener(host, port)
    return caught.value


def test_a_port_that_is_taken_is_to_be_changed() -> None:
    with open_listener("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        error = refusal("127.0.0.1", port)
    assert f"127.0.0.1 port {port}: another program listens there" in error.what
    assert "--port" in error.step
    assert "--host" not in error.step


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_no_matter_of_the_port(host: str) -> None:
    error = refusal(host, 0)
    assert host in error.what
    assert "--host: 127.0.0.1 for this machine alone" in error.step
    assert "--port" not in error.step


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1")])
def test_the_address_is_one_that_can_be_called(host: str, shown: str) -> None:
    with open_listener(host, 0) as listener:
        port = listener.getsockname()[1]
        assert url_of(listener) == f"http://{shown}:{port}"
        socket.create_connection((shown, port), timeout=5).close()


def test_a_second_port_that_is_taken_is_told_by_its_flag_and_the_first_is_given_back(
    tmp_path: Path,
) -> None:
    port = free_port()
    with open_listener("127.0.0.1", 0) as taken:
        settings = settings_of(tmp_path, tmp_path).model_copy(
            update={"port": port, "load_port": taken.getsockname()[1]}
        )
        with pytest.raises(CannotStart, match="another program listens there") as caught:
            open_listeners(settings)
    assert "--load-port" in caught.value.step
    open_listener("127.0.0.1", port).close()
