"""`overtone worker` at the command line: what is wrong with its words is said in one line."""

import subprocess
import sys
from pathlib import Path

from program import environment

PROGRAM = str(Path(sys.executable).with_name("overtone"))


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [PROGRAM, "worker", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
        check=False,
    )


def test_a_worker_needs_a_base() -> None:
    done = run()
    assert done.returncode == 2
    assert "--base" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_registry_that_cannot_be_is_named_and_its_password_is_not(tmp_path: Path) -> None:
    registry = "http://user:secret@somewhere"
    done = run("--base", "x", "--registry", registry, "--data", str(tmp_path))
    assert done.returncode == 1
    assert "the registry's URL is not 'embedded', redis://" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_help_names_every_setting_and_loads_no_torch() -> None:
    code = (
        "import sys; from trainer.worker.commands import worker; import inspect;"
        "print(*inspect.signature(worker).parameters, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        *("ctx", "base", "base_name", "registry", "registry_password_file", "data", "store"),
        *("device", "ranks", "threads", "nice", "stalled_after", "tensorboard"),
        "False",
    ]
