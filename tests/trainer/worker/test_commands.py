"""`overtone worker` at the command line: errors in its options are one line."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from program import run_worker_command as run
from server.process.worker_process import _variables
from server.settings import read_settings
from trainer.worker.commands import worker


def test_a_worker_needs_a_base() -> None:
    done = run()
    assert done.returncode == 2
    assert "--base" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_malformed_registry_url_is_shown_without_its_password(tmp_path: Path) -> None:
    registry = "http://user:secret@somewhere"
    done = run("--base", "x", "--registry", registry, "--data", str(tmp_path))
    assert done.returncode == 1
    assert "the registry's URL is not 'embedded', redis://" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_reads_every_variable_that_its_server_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`serve --with-worker` gives its settings to the worker by the environment alone."""
    password = tmp_path / "password"
    password.write_text("geheim\n")
    settings = read_settings(
        base="a/b",
        base_name="c",
        registry="redis://host",
        registry_password_file=str(password),
        data=str(tmp_path / "data"),
        store=str(tmp_path / "store"),
        device="cpu",
        worker_threads="2",
        worker_nice="7",
    )
    for name, value in _variables(settings).items():
        monkeypatch.setenv(name, value)
    program = typer.Typer()
    program.command()(worker)
    given = typer.main.get_command(program).make_context("worker", []).params
    assert given.pop("registry_password_file") == password
    assert given == {
        "base": "a/b",
        "base_name": "c",
        "registry": "redis://host",
        "data": tmp_path / "data",
        "store": str(tmp_path / "store"),
        "store_cache_bytes": 10 << 30,
        "device": "cpu",
        "ranks": 1,
        "threads": 2,
        "nice": 7,
        "stalled_after_s": 1800.0,
        "tensorboard": None,
    }


def test_help_names_every_setting_and_loads_no_torch() -> None:
    code = (
        "import sys; from trainer.worker.commands import worker; import inspect;"
        "print(*inspect.signature(worker).parameters, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        *("ctx", "base", "base_name", "registry", "data", "store", "store_cache_bytes", "device"),
        *("ranks", "threads", "nice", "stalled_after_s", "tensorboard", "registry_password_file"),
        "False",
    ]
