"""Live servers for the tests of the HTTP side. Everything heavy is imported when it is needed."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from server.processor.choice import VARIABLE, this_processor

if TYPE_CHECKING:
    from live import Live
    from s3_server import S3Server

# A shell starts background jobs with Ctrl-C ignored, and programs under test would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Kernels for a GPU run by the interpreter where there is none; read when they are imported.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Before torch is loaded: where a server would look for a setting, tests take the usual one.
if setting := this_processor().guess():
    os.environ.setdefault(VARIABLE, setting)

# Several processes share the cores: a thread of torch's that waits for the next product sleeps.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Jobs step back behind everything else on a machine, and that is other tests here.
os.environ["OVERTONE_WORKER_NICE"] = "0"


@pytest.fixture(scope="session", autouse=True)
def _row_multiple() -> None:
    """Let products run over as many rows as test_instruction_sets.py found right."""
    if multiple := os.environ.get("OVERTONE_TEST_ROW_MULTIPLE"):
        from adapters_core.contract.rows import set_row_multiple

        set_row_multiple(int(multiple))


@pytest.fixture(scope="session")
def few_threads() -> Iterator[None]:
    """Tiny matrices are faster on one thread, and several servers share two cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    from s3_server import S3Server

    server = S3Server()
    yield server
    server.close()


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """A server of S3, which the environment names."""
    for name, value in s3_server.variables.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a tiny base by its shape, written once."""
    import tiny

    written: dict[str, Path] = {}

    def folder(shape: str) -> Path:
        if shape not in written:
            written[shape] = tiny.save_base(tmp_path_factory.mktemp(shape), shape)
        return written[shape]

    return folder


@pytest.fixture(scope="session")
def _launch(
    base_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory, few_threads: None
) -> Callable[..., Any]:
    from live import serving, settings_of

    numbers = itertools.count()

    def launch(shape: str = "llama", **changes: Any) -> Any:
        data = changes.pop("data", None) or tmp_path_factory.mktemp(f"data{next(numbers)}")
        base = changes.pop("base", None) or base_folder(shape)
        return serving(settings_of(base, data, **changes))

    return launch


@pytest.fixture(scope="session")
def live(_launch: Callable[..., Any]) -> Iterator[Live]:
    """The server that most tests share: a tiny Llama, and every setting's default."""
    with _launch() as server:
        yield server


@pytest.fixture
def serve(_launch: Callable[..., Any]) -> Iterator[Callable[..., Live]]:
    """Return what starts another server: `serve(shape, **settings)`; all end with the test."""
    with ExitStack() as stack:
        yield lambda *args, **changes: stack.enter_context(_launch(*args, **changes))


@pytest.fixture(scope="module")
def serve_all(_launch: Callable[..., Any]) -> Iterator[Callable[..., Live]]:
    """As `serve`, for servers that a whole module shares."""
    with ExitStack() as stack:
        yield lambda *args, **changes: stack.enter_context(_launch(*args, **changes))
