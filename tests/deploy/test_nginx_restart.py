"""Two real servers behind nginx are restarted, one after the other, and no request is lost."""

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from live import CONFIG, FILE
from program import Program
from registry.redis.embedded import EmbeddedServer
from waiting import until

from .nginx import running_nginx

DEMO = Path(__file__).parents[2] / "trainer" / "demo"
ADAPTERS = ("legalese", "shouting")
NAMES = [f"{adapter}-{number}" for adapter in ADAPTERS for number in range(4)]
NUM_CALLERS = 4
DEADLINE_S = 120.0
#: Long enough that a signal always meets answers that have begun.
ASKED = {"prompt": "You may", "max_tokens": 24, "temperature": 0, "ignore_eos": True}


@pytest.mark.nginx
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_rolling_restart_under_load_loses_no_request(tmp_path: Path) -> None:
    with two_servers(tmp_path) as servers:
        hosts = [server.url.removeprefix("http://") for server in servers]
        with running_nginx(hosts, tmp_path) as url:
            upload(url)
            wanted = {name: text_of(servers[0].url, name) for name in NAMES}
            assert len(set(wanted.values())) == len(ADAPTERS)
            callers = Callers(url, wanted)
            with callers.calling():
                until(lambda: len(callers.answered) >= 4 * len(NAMES), DEADLINE_S)
                calm = set(callers.answered)
                for server, host in zip(servers, hosts, strict=True):
                    restart(server)
                    callers.wait_for(host)
    assert callers.lost == []
    assert len(calm) == len(NAMES)  # each adapter's requests went to one server
    assert {host for _, host in calm} == set(hosts)
    print(f"{len(callers.answered)} requests answered, none lost")  # noqa: T201


@contextmanager
def two_servers(folder: Path) -> Iterator[list[Program]]:
    """Run two servers on the demo's base that share a registry and a store."""
    fixed = {"calibration_s": 0, "kv_bytes": 1 << 27, "store": folder / "blobs"}
    with ExitStack() as stack:
        registry = stack.enter_context(closing(EmbeddedServer(folder / "registry")))
        yield [
            stack.enter_context(
                closing(
                    Program(
                        DEMO / "base", folder / name, folder / f"{name}.log", registry.url, fixed
                    )
                )
            )
            for name in ("one", "two")
        ]


def upload(url: str) -> None:
    """Upload the demo's adapters under several names."""
    with httpx2.Client(base_url=url, timeout=60, trust_env=False) as client:
        for name in NAMES:
            source = DEMO / "adapters" / name.partition("-")[0]
            files = {"config": (source / CONFIG).read_bytes(), "file": (source / FILE).read_bytes()}
            done = client.post("/v1/adapters", data={"name": name}, files=files)
            assert done.status_code in (200, 201), done.text


def text_of(url: str, name: str) -> str:
    with httpx2.Client(base_url=url, timeout=60, trust_env=False) as client:
        return whole(client, name)[0]


def whole(client: httpx2.Client, name: str) -> tuple[str, str]:
    """Return an answer's text, and which server sent it."""
    answer = client.post("/v1/completions", json={"model": name, **ASKED})
    assert answer.status_code == 200, f"{answer.status_code} {answer.text}"
    return answer.json()["choices"][0]["text"], answer.headers.get("X-Overtone-Server", "")


def streamed(client: httpx2.Client, name: str) -> tuple[str, str]:
    """Return the same of an answer that is streamed to its end."""
    body = {"model": name, "stream": True, **ASKED}
    with client.stream("POST", "/v1/completions", json=body) as answer:
        lines = [line for line in answer.iter_lines() if line.startswith("data: ")]
        assert answer.status_code == 200, answer.status_code
    assert lines[-1:] == ["data: [DONE]"], lines[-1:]
    events: list[Any] = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    text = "".join(event["choices"][0]["text"] for event in events)
    return text, answer.headers["X-Overtone-Server"]


def restart(server: Program) -> None:
    """End it as a deployment does, and start it again on its port."""
    server.process.terminate()
    assert server.process.wait(60) == 0
    server.restart()


@dataclass
class Callers:
    """Ask for all adapters in turn, whole and streamed, until the block ends.

    Args:
        url: of nginx.
        wanted: name -> the text of its answer.
    """

    url: str
    wanted: dict[str, str]
    answered: list[tuple[str, str]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def calling(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._call, args=(n,)) for n in range(NUM_CALLERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.is_over.set()
            for thread in threads:
                thread.join(60)

    def wait_for(self, host: str) -> None:
        """Wait until a server has answered again."""
        begun = len(self.answered)
        until(lambda: host in {by for _, by in self.answered[begun:]}, DEADLINE_S)

    def _call(self, number: int) -> None:
        turns = itertools.cycle(itertools.product((whole, streamed), NAMES))
        turns = itertools.islice(turns, number * 3, None)
        with httpx2.Client(base_url=self.url, timeout=60, trust_env=False) as client:
            for ask, name in turns:
                if self.is_over.is_set():
                    return
                try:
                    text, server = ask(client, name)
                    assert text == self.wanted[name]
                    self.answered.append((name, server))
                except (AssertionError, httpx2.TransportError) as error:
                    self.lost.append(f"{ask.__name__} {name}: {error!r}")
