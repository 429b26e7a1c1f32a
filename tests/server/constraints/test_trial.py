"""The process that compiles first: it outlives what a constraint does to it, and no server."""

import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from server.constraints import trial_process
from server.constraints.trial_process import NotTried, Refused, TooCostly, TrialProcess
from server.constraints.trie import Vocabulary, no_usual_tokens
from waiting import until

VOCABULARY = Vocabulary([b"a", b"b", b"x"], {}, no_usual_tokens)
#: Starts the process, says its number, and goes on for ever.
STARTED = """
import time
from server.constraints.trial_process import TrialProcess
from server.constraints.trie import Vocabulary, no_usual_tokens
trial = TrialProcess(Vocabulary([b"a"], {}, no_usual_tokens))
trial.tried("regex", "a")
print(trial._process.pid, flush=True)
time.sleep(600)
"""


def runs(number: int) -> bool:
    try:
        status: str = psutil.Process(number).status()
    except psutil.NoSuchProcess:
        return False
    return status != psutil.STATUS_ZOMBIE


@pytest.fixture
def trial() -> Iterator[TrialProcess]:
    made = TrialProcess(VOCABULARY)
    yield made
    made.close()


def test_a_fork_that_ends_without_a_word_is_an_error_of_its_constraint(
    trial: TrialProcess,
) -> None:
    """Whatever it raises: Python may run out of memory before the library does."""
    with pytest.raises(TooCostly):
        trial.tried("parts", "[]")
    with pytest.raises(Refused, match="unclosed"):
        trial.tried("regex", "a(")
    assert trial.tried("regex", "ab").grammar


def test_a_process_that_was_killed_is_started_again(
    trial: TrialProcess,
) -> None:
    assert trial.tried("regex", "ab").grammar
    first = trial._process
    assert first is not None
    first.kill()
    first.wait()
    assert trial.tried("regex", "ab").grammar


def test_a_process_that_does_not_answer_is_no_fault_of_the_constraint(
    trial: TrialProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trial.tried("regex", "ab").grammar
    assert trial._process is not None
    trial._process.send_signal(signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr(trial_process, "_MAX_WALL_S", 0.2)
        with pytest.raises(NotTried, match="ended with -9"):
            trial.tried("regex", "abx")
    assert trial.tried("regex", "abx").grammar


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it ends when nothing is asked")
def test_it_ends_with_a_server_that_is_killed() -> None:
    server = subprocess.Popen([sys.executable, "-c", STARTED], stdout=subprocess.PIPE, text=True)
    with server:
        assert server.stdout is not None
        number = int(server.stdout.readline())
        assert runs(number)
        server.kill()
    until(lambda: not runs(number))
