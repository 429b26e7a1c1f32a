"""The real program before it serves: what cannot work, signals in its midst, and the doctor."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from disks import small_disk
from program import environment, free_port
from registry.redis.embedded import find_binary
from waiting import listens, until

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "overtone"]
PATHS = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "client")])}
BASE = str(ROOT / "trainer" / "demo" / "base")
TOLD = {signal.SIGINT: 130, signal.SIGTERM: 143}


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments],
        env={**environment(), **PATHS, **variables},
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.fixture
def unloadable(tmp_path: Path) -> dict[str, str]:
    """Variables with which importing torch or transformers is an error."""
    for name in ("torch", "transformers"):
        (tmp_path / "heavy" / name).mkdir(parents=True)
        (tmp_path / "heavy" / name / "__init__.py").write_text("raise ImportError('too early')")
    (tmp_path / "heavy" / "torch" / "version.py").write_text(
        "__version__ = '2.0+cpu'\ncuda = hip = None\n"
    )
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path / "heavy"), PATHS["PYTHONPATH"]])}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--base=/nowhere/llama",), "there is no such folder: / holds no nowhere. Give a folder"),
        (("--base=some-one/some-model",), "HF_HUB_OFFLINE forbids asking the hub"),
        (
            (f"--base={ROOT / 'README.md'}",),
            "it is a file, and not in GGUF's format. Give a folder",
        ),
        ((f"--base={BASE}", "--device=cuda"), "torch, 2.0+cpu, computes on CPUs only"),
        ((f"--base={BASE}", "--data=/dev/null/data"), "--data or OVERTONE_DATA"),
        ((f"--base={BASE}", "--registry=http://h"), "registry's URL is not 'embedded', redis://"),
    ],
)
@pytest.mark.parametrize("command", ["serve", "worker"])
def test_what_cannot_work_is_said_before_anything_heavy_is_imported(
    command: str,
    flags: tuple[str, ...],
    words: str,
    unloadable: dict[str, str],
    tmp_path: Path,
) -> None:
    data = [] if any(flag.startswith("--data") for flag in flags) else [f"--data={tmp_path}"]
    done = run(command, *flags, *data, **unloadable)
    assert done.returncode == 1, done.stderr
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a registry that wants a password."""
    folder = tmp_path_factory.mktemp("registry")
    words = ["--port", "0", "--unixsocket", "redis.sock", "--save", "", "--requirepass", "geheim"]
    command = [str(find_binary()), *words]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as process:
        until(lambda: listens(folder / "redis.sock"))
        yield folder / "redis.sock"
        process.kill()


@pytest.mark.parametrize(
    ("password", "words"),
    [("", "wants one and none is set"), (":wrong@", "refuses the user or the password")],
)
def test_a_wrong_password_is_said_before_anything_heavy_is_imported(
    guarded: Path, password: str, words: str, unloadable: dict[str, str], tmp_path: Path
) -> None:
    variables = {"OVERTONE_REGISTRY": f"unix://{password}{guarded}", **unloadable}
    done = run("serve", f"--base={BASE}", f"--data={tmp_path}", "--port=0", **variables)
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "wrong@" not in done.stderr


def test_a_registry_that_does_not_answer_is_said_before_anything_heavy_is_imported(
    unloadable: dict[str, str], tmp_path: Path
) -> None:
    """Nothing listens there: it may be starting, and is waited for."""
    place = f"redis://127.0.0.1:{free_port()}"
    flags = [f"--base={BASE}", f"--data={tmp_path}", "--port=0", f"--registry={place}"]
    with subprocess.Popen(
        [*PROGRAM, "serve", *flags],
        env={**environment(), **PATHS, **unloadable},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        process.kill()
    assert f"the registry {place} cannot be used: nothing listens at its address" in line
    assert "it is waited for, 5 s at most" in line


def test_a_data_folder_that_cannot_be_written_is_said_before_anything_heavy_is_imported(
    unloadable: dict[str, str], tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", "1m") as folder:
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        done = run("serve", f"--base={BASE}", f"--data={folder}", "--port=0", **unloadable)
    assert done.returncode == 1
    assert f"data folder '{folder}': Read-only file system" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", [("demo",), ("serve", "--base", BASE)])
def test_a_taken_port_is_said_before_anything_heavy_is_imported(
    command: tuple[str, ...], unloadable: dict[str, str], tmp_path: Path
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = run(*command, "--port", str(port), "--data", str(tmp_path), **unloadable)
    assert done.returncode == 1
    assert f"127.0.0.1 port {port}: another program listens there" in done.stderr


@dataclass
class Start:
    """A program that starts, alone in a session, as a terminal's foreground is."""

    process: "subprocess.Popen[str]"
    port: int
    data: Path

    def accepts(self) -> bool:
        """True from the port's opening on: torch is being imported."""
        with closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def has_registry(self) -> bool:
        """True when the registry is open and the base is being loaded."""
        return (self.data / "registry" / "valkey.sock").exists()

    def ended_by(self, number: int) -> tuple[int, list[str]]:
        """Send the signal to all that run, as a terminal does; return code and lines of output.

        Nothing of what it started may be left.
        """
        children = psutil.Process(self.process.pid).children(recursive=True)
        os.killpg(self.process.pid, number)
        out, _ = self.process.communicate(timeout=30)
        _, alive = psutil.wait_procs(children, 10)
        assert not alive
        return self.process.returncode, out.splitlines()


@contextmanager
def starting(data: Path, *arguments: str) -> Iterator[Start]:
    port = free_port()
    process = subprocess.Popen(
        [*PROGRAM, *arguments, "--port", str(port), "--data", str(data)],
        env={**environment(), **PATHS},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield Start(process, port, data)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", TOLD)
@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(Start.accepts, id="importing"),
        pytest.param(Start.has_registry, id="loading", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(("serve", "--base", BASE), marks=pytest.mark.slow, id="serve"),
        pytest.param(("demo",), id="demo"),
    ],
)
def test_a_signal_in_the_midst_of_a_start_ends_it_in_one_line(
    command: tuple[str, ...],
    moment: Callable[[Start], bool],
    number: signal.Signals,
    tmp_path: Path,
) -> None:
    with starting(tmp_path, *command) as start:
        until(lambda: moment(start), 60)
        code, lines = start.ended_by(number)
    assert code == TOLD[number]
    assert lines[-1] == "stopped while starting; nothing was served"
    assert not any("Traceback" in line or "Error" in line for line in lines)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_demo_that_is_stopped_while_it_loads_starts_again_on_the_same_data(
    tmp_path: Path,
) -> None:
    """Stopped when its registry is open; and then when it has published and waits."""
    with starting(tmp_path, "demo") as start:
        until(start.has_registry, 90)
        assert start.ended_by(signal.SIGINT)[0] == 130
    with starting(tmp_path, "demo") as start:
        assert start.process.stdout is not None
        assert any("Ctrl-C ends it" in line for line in start.process.stdout)
        code, lines = start.ended_by(signal.SIGINT)
    assert code == 130
    assert not any("Traceback" in line for line in lines)


def test_ctrl_c_while_the_program_itself_is_imported_ends_in_one_line(tmp_path: Path) -> None:
    package = tmp_path / "overtone_client"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n"
    )
    done = run("list", PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT / "client")]))
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


@pytest.mark.timeout(120)
def test_the_doctor_finds_this_machine_fit(tmp_path: Path) -> None:
    done = run("doctor", "--data", str(tmp_path), "--json")
    findings = {f["question"]: f for f in json.loads(done.stdout)}
    asked = {"Python", "torch", "free memory", "data folder", "store", "registry"}
    asked |= {"transforms", "batch invariance"}
    assert asked <= set(findings)
    assert "base" not in findings
    assert all(finding["is_good"] for finding in findings.values()), findings
    assert int(findings["transforms"]["detail"].split()[0]) > 0
    assert done.returncode == 0


@pytest.mark.slow
def test_the_doctor_takes_the_variables_that_the_server_takes(tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.write_text("no folder")
    variables = {
        "OVERTONE_DATA": str(taken),
        "OVERTONE_STORE": str(taken / "blobs"),
        "OVERTONE_BASE": BASE,
        "OVERTONE_REGISTRY": f"redis://:geheim@127.0.0.1:{free_port()}",
    }
    done = run("doctor", "--json", **variables)
    findings = {f["question"]: f for f in json.loads(done.stdout)}
    bad = {name: f for name, f in findings.items() if not f["is_good"]}
    assert set(bad) == {"data folder", "store", "registry"}
    assert findings["base"]["detail"] == f"{BASE}: a causal LM with 28 linears"
    assert findings["transforms"]["detail"].endswith("on the base's own shapes")
    assert findings["batch invariance"]["detail"].startswith("a row has its own bits")
    assert all(finding["advice"] for finding in bad.values())
    assert "redis://:***@127.0.0.1" in bad["registry"]["detail"]
    assert "geheim" not in done.stdout + done.stderr
    assert done.returncode == 1


def test_a_search_for_the_processors_setting_ends_with_the_program(tmp_path: Path) -> None:
    """The process that tries a setting is no orphan, however the program ends."""
    if sys.platform != "linux":
        pytest.skip("only Linux ties a process to its parent")
    program = "import sys; from server.processor.search import search; search(sys.argv[1], 'auto')"
    process = subprocess.Popen(
        [sys.executable, "-c", program, BASE],
        env={**environment(), **PATHS},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        tried: list[psutil.Process] = []
        until(lambda: bool(tried.extend(psutil.Process(process.pid).children()) or tried), 30)
    finally:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(tried, 2)  # less than importing torch takes
    assert not alive
