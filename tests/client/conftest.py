import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx2
import pytest
import uvicorn
from typer.testing import CliRunner, Result

from overtone_client import AsyncClient, Client, _pauses
from overtone_client.cli import app

from .fake_overtone import State, create_app


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OVERTONE_URL", "OVERTONE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(autouse=True)
def paused(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of each pause that a client made; none of them takes any time."""
    pauses: list[float] = []

    async def note(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(_pauses, "pause", pauses.append)
    monkeypatch.setattr(_pauses, "async_pause", note)
    return pauses


@pytest.fixture(scope="session")
def served() -> Iterator[tuple[str, State]]:
    state = State()
    options = {"log_level": "critical", "lifespan": "off", "ws": "none"}
    server = uvicorn.Server(uvicorn.Config(create_app(state), **options))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # from here on a client may connect; the server answers when it is up
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", state
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def state(served: tuple[str, State]) -> State:
    vars(served[1]).update(vars(State()))
    return served[1]


@pytest.fixture
def url(served: tuple[str, State], state: State) -> str:
    return served[0]


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, timeout=10) as client:
        yield client


@pytest.fixture
def run(url: str) -> Callable[..., Result]:
    """Return what runs the program against the server; `text` is its standard input."""

    def invoke(*arguments: str | Path, text: str | None = None) -> Result:
        return CliRunner().invoke(app, ["--url", url, *map(str, arguments)], input=text)

    return invoke


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A training file of one line."""
    path = tmp_path / "lines.jsonl"
    path.write_text('{"text": "a"}\n')
    return path


@pytest.fixture
async def async_client(state: State) -> AsyncIterator[AsyncClient]:
    transport = httpx2.ASGITransport(create_app(state))
    async with AsyncClient("http://server", transport=transport) as client:
        yield client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"0123456789" * 20_000)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "FOURIERFT"}))
    return tmp_path
