"""The process in which constraints are compiled first (trial.py), from the server's side."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass

from registry.common.die_with_parent import tied
from server.constraints.spec import Kind
from server.constraints.trial import MAX_BYTES, MAX_CPU_S, request_of
from server.constraints.trie import Vocabulary

_LOG = logging.getLogger("overtone.constraints")
_MODULE = "server.constraints.trial"
#: On a busy machine the processor's seconds take longer.
_MAX_WALL_S = 30.0


class Refused(Exception):
    """A constraint cannot be compiled; the message says why, in llguidance's words."""


class TooCostly(Exception):
    """Compiling a constraint takes too much time, memory or stack."""


class NotTried(Exception):
    """The process ended, or did not answer, for no reason that is known to be the constraint's."""


@dataclass(frozen=True)
class Tried:
    """A constraint that can be compiled.

    Args:
        grammar: it, in llguidance's form.
        size_bytes: that it takes when it is compiled, about.
    """

    grammar: str
    size_bytes: int


class TrialProcess:
    """Compiles constraints in a process that is started when it is needed.

    Use it on one thread, which lives as long as it: on Linux the process ends with that thread.
    `close` may come from another one, behind the end of that thread.

    Args:
        vocabulary: of the base.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._process: subprocess.Popen[str] | None = None

    def tried(self, kind: Kind, text: str) -> Tried:
        """Return a constraint that was compiled there, so that it can be compiled here.

        Args:
            kind: how `text` is to be read.
            text: as in `ConstraintSpec`.

        Raises:
            Refused: it cannot be compiled.
            TooCostly: it needs more than there is for one constraint.
            NotTried: it may be sent again.
        """
        line = json.dumps({"kind": kind, "text": text})
        said, code = self._asked(line)
        if code == 0:  # it had idled, and ended meanwhile
            said, code = self._asked(line)
        if not said:  # constraints are tried in its forks, and end those alone
            raise NotTried(f"the process in which constraints are compiled ended with {code}")
        reply = json.loads(said)
        if "ended" in reply:
            _LOG.warning("compiling a constraint ended with %s", reply["ended"])
            raise TooCostly(
                f"to compile it takes more than {MAX_CPU_S} s, {MAX_BYTES >> 20} MiB, or too deep "
                "a recursion"
            )
        if "fault" in reply:
            raise Refused(reply["fault"])
        return Tried(reply["grammar"], reply["bytes"])

    def close(self) -> None:
        """End the process, if one runs."""
        if self._process is not None:
            _end(self._process)
            self._process = None

    def _asked(self, line: str) -> tuple[str, int | None]:
        """Return the process's answer; if it has ended, none and its exit code."""
        if self._process is not None and self._process.poll() is not None:
            self.close()  # whatever ended it, it was not this line
        process = self._process = self._process or self._started()
        reply = _answered(process, line)
        if not reply:
            self.close()
        return reply, process.returncode

    def _started(self) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            tied([sys.executable, "-m", _MODULE]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C ends the server first, and that ends it
        )
        if not _answered(process, request_of(self._vocabulary)):
            _end(process)
            raise RuntimeError(f"{_MODULE} does not start: it ended with {process.returncode}")
        return process


def _answered(process: "subprocess.Popen[str]", line: str) -> str:
    """Return a process's answer to a line; nothing if it ends, or has to be ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    clock = threading.Timer(_MAX_WALL_S, _kill, [process])
    clock.start()
    try:
        process.stdin.write(line + "\n")
        process.stdin.flush()
        return process.stdout.readline()
    except BrokenPipeError:
        return ""
    finally:
        clock.cancel()


def _end(process: "subprocess.Popen[str]") -> None:
    """End a process that may have ended by itself, and close its pipes."""
    _kill(process)
    with suppress(BrokenPipeError):  # of what it has not read
        process.communicate()


def _kill(process: "subprocess.Popen[str]") -> None:
    """Kill a process with its forks; it leads a session of its own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
