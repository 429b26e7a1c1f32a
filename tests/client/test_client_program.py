"""The installed program as a process of its own: exit codes, streams, signals, a terminal."""

import json
import os
import pty
import resource
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import pytest

from .fake_overtone import Fault, State

CTRL_D = b"\x04"
PROGRAM = [sys.executable, "-W", "error", "-c", "from overtone_client.cli import main; main()"]


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TERM", "xterm")


def run(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, timeout=30, check=False, **more
    )


def test_program_is_installed() -> None:
    program = Path(sys.executable).with_name("overtone")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("overtone-client ")


def test_exit_codes_and_streams(url: str, state: State) -> None:
    state.add("demo")
    good = run("--json", "list", "--url", url)
    assert (good.returncode, good.stderr) == (0, "")
    assert json.loads(good.stdout)["data"][0]["name"] == "demo"
    missing = run("show", "nothing", "--url", url)
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr.startswith("error: model_not_found")
    assert run("show").returncode == 2


def test_reader_that_goes_away_leaves_no_traceback(url: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    arguments = [*PROGRAM, "complete", "demo", "x", "--url", url]
    gone = subprocess.run(arguments, stdout=writer, stderr=subprocess.PIPE, timeout=30, check=False)
    os.close(writer)
    assert gone.returncode == 1
    assert b"Traceback" not in gone.stderr


def test_ctrl_c_ends_with_130_and_no_traceback(url: str) -> None:
    arguments = [*PROGRAM, "complete", "hangs", "x", "--url", url]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.read(5) == b"Hello"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert b"Traceback" not in process.stderr.read()


def test_list_starts_without_the_application(url: str) -> None:
    code = (
        "import sys\n"
        "from overtone_client.cli import main\n"
        "try: main()\n"
        "finally: print('torch' in sys.modules, 'server' in sys.modules, file=sys.stderr)"
    )
    arguments = [sys.executable, "-c", code, "list", "--url", url]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "False False\n")


def test_list_starts_in_less_than_half_a_second(url: str) -> None:
    assert min(busy_seconds("list", "--url", url) for _ in range(2)) < 0.5


def busy_seconds(*arguments: str) -> float:
    """Processor time of one run: unlike the clock, it is little moved by what else runs here."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run(*arguments).returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Terminal:
    """The program at a terminal of its own, and the person before it."""

    def __init__(self, *arguments: str) -> None:
        self._screen, theirs = pty.openpty()
        streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        self.process = subprocess.Popen([*PROGRAM, *arguments], **streams)
        os.close(theirs)
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._screen)

    def see(self, wanted: bytes) -> bytes:
        """What appears up to and with `wanted`."""
        while wanted not in self._unread:
            ready, _, _ = select.select([self._screen], [], [], 30)
            assert ready, f"no {wanted!r} in {self._unread!r}"
            self._unread += os.read(self._screen, 4096)
        seen, _, self._unread = self._unread.partition(wanted)
        return seen + wanted

    def type(self, keys: bytes) -> None:
        os.write(self._screen, keys)

    def interrupt(self, wanted: bytes) -> None:
        """Press Ctrl-C until it shows: a line editor misses one that comes as it begins to wait."""
        for _ in range(30):
            self.process.send_signal(signal.SIGINT)
            if select.select([self._screen], [], [], 1)[0]:
                self.see(wanted)
                return
        raise AssertionError(f"no {wanted!r}")


def test_chat_at_a_terminal_goes_turn_by_turn(url: str, state: State) -> None:
    with Terminal("chat", "demo", "--url", url) as terminal:
        terminal.see(b"> ")
        terminal.type(b"first\n")
        assert b"Hello, " in terminal.see(b"demo@1 factored")
        terminal.see(b"> ")
        terminal.type(b"second\n")
        terminal.see(b"demo@1 factored")
        terminal.see(b"> ")
        terminal.type(CTRL_D)
        assert terminal.process.wait(30) == 0
    turns = [message["content"] for message in state.bodies[-1]["messages"]]
    assert turns == ["first", "Hello, \x1b[31mworld", "second"]


def test_failed_turn_does_not_end_the_chat(url: str, state: State) -> None:
    with Terminal("chat", "no-template", "--url", url) as terminal:
        terminal.see(b"> ")
        terminal.type(b"first\n")
        terminal.see(b"overtone complete")
        terminal.see(b"> ")
        terminal.type(CTRL_D)
        assert terminal.process.wait(30) == 0
    assert len(state.bodies) == 1


def test_ctrl_c_stops_an_answer_and_not_the_chat(url: str, state: State) -> None:
    with Terminal("chat", "hangs", "--url", url) as terminal:
        terminal.see(b"hangs> ")
        terminal.type(b"first\n")
        terminal.see(b"Hello")
        terminal.process.send_signal(signal.SIGINT)
        terminal.see(b"(stopped)")
        terminal.see(b"hangs> ")
        terminal.interrupt(b"Ctrl-D or /exit ends the chat")
        terminal.type(b"/adapter demo\n")
        terminal.see(b"demo> ")
        terminal.type(b"second\n")
        terminal.see(b"demo@1 factored")
        terminal.type(b"/exit\n")
        assert terminal.process.wait(30) == 0
    turns = [message["content"] for message in state.bodies[-1]["messages"]]
    assert turns == ["first", "Hello", "second"]  # what was said before it was stopped stays


def test_a_chat_takes_commands(url: str, state: State) -> None:
    state.add("demo")
    state.add("poet")
    with Terminal("chat", "demo", "--url", url) as terminal:
        terminal.see(b"demo> ")
        for typed, seen, prompt in (
            (b"/help", b"/system   TEXT", b"demo> "),
            (b"/poem", b"there is no /poem", b"demo> "),
            (b"/adapter poets", b"did you mean 'poet'?", b"demo> "),
            (b"/adapter", b"demo answers", b"demo> "),
            (b"/adapter poet", b"/adapter poet", b"poet> "),
            (b"first", b"poet@1 factored", b"poet> "),
            (b"/reset", b"are forgotten", b"poet> "),
            (b"/system be kind", b"told beforehand", b"poet> "),
            (b"second", b"poet@1 factored", b"poet> "),
        ):
            terminal.type(typed + b"\n")
            terminal.see(seen)
            terminal.see(prompt)
        terminal.type(CTRL_D)
        assert terminal.process.wait(30) == 0
    assert state.bodies[-1]["model"] == "poet"
    assert state.bodies[-1]["messages"] == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "second"},
    ]


def test_what_was_asked_comes_back_in_the_next_chat(url: str, tmp_path: Path) -> None:
    for asked in (b"first question\n", b"\x1b[A\n"):  # the arrow up
        with Terminal("chat", "demo", "--url", url) as terminal:
            terminal.see(b"demo> ")
            terminal.type(asked)
            assert b"first question" in terminal.see(b"demo@1 factored")
            terminal.see(b"demo> ")
            terminal.type(CTRL_D)
            assert terminal.process.wait(30) == 0
    (kept,) = tmp_path.glob("state/overtone/chat_history")
    assert kept.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("answer", "code"), [(b"n\n", 1), (b"y\n", 0), (CTRL_D, 130)])
def test_delete_asks_a_person(url: str, state: State, answer: bytes, code: int) -> None:
    state.add("demo")
    with Terminal("delete", "demo", "--url", url) as terminal:
        terminal.see(b"Delete demo and all its versions?")
        terminal.type(answer)
        assert terminal.process.wait(30) == code
    assert ("demo" in state.adapters) == bool(code)


def test_upload_at_a_terminal_shows_its_progress(url: str, folder: Path) -> None:
    with Terminal("upload", str(folder), "--name", "demo", "--url", url) as terminal:
        assert b"uploading" in terminal.see(b"demo@1 is ready")
        assert terminal.process.wait(30) == 0


def test_one_tab_asks_the_server_once(url: str, state: State) -> None:
    for number in (6, 7):
        state.add(f"poet-{number}")
    with Terminal("chat", "poet-6", "--url", url) as terminal:
        terminal.see(b"poet-6> ")
        terminal.type(b"/adapter po\t")
        terminal.see(b"et-")
        assert state.calls == ["GET /v1/adapters"]
        terminal.type(b"7\n")
        terminal.see(b"poet-7> ")
        terminal.type(CTRL_D)


def test_a_tab_does_not_ask_a_busy_server_again(url: str, state: State) -> None:
    state.lasting_fault = Fault(503, "registry_unavailable", "away")
    with Terminal("chat", "demo", "--url", url) as terminal:
        terminal.see(b"demo> ")
        terminal.type(b"/adapter po\t")
        terminal.type(b"et\n")
        terminal.see(b"et\r\n")
        terminal.see(b"registry_unavailable")
        tries = state.calls.index("GET /v1/models/poet")
        assert state.calls[:tries] == ["GET /v1/adapters"]
        terminal.type(CTRL_D)


def test_a_pause_is_told_without_steering_the_terminal(url: str, state: State) -> None:
    state.next_fault = Fault(503, "registry_unavailable", "away\x1b[2J")
    with Terminal("list", "--url", url) as terminal:
        seen = terminal.see(b"asking again")
        assert terminal.process.wait(30) == 0
    assert b"away[2J" in seen
    assert b"\x1b" not in seen
