"""What takes long to compute from the base's weights, computed in processes beside the server.

Steps of other adapters go on meanwhile, at their speed: the processes run when nothing else wants
the processor, on one thread each. A request that needs such a basis is told when to come back.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch

from adapters_core.base.spec import BaseWeights
from adapters_core.contract.layer import Derived
from adapters_core.errors import BasisPending, InvalidAdapter
from registry.common.die_with_parent import tied
from server.adapters.basis_child import request_of

_LOG = logging.getLogger("overtone.bases")
_MODULE = "server.adapters.basis_child"
_FIRST_GUESS_S = 60
_MOST_S = 300
#: As many at once; each takes what its weights take in float32, twice.
_AT_ONCE = 2
_LOGGED_SHARE = 0.1


@dataclass
class _Task:
    """One computation: waiting, running, or failed."""

    share: float = 0.0
    started: float | None = None
    fault: Exception | None = None
    process: "subprocess.Popen[bytes] | None" = None
    logged: float = field(default=0.0)

    def pending(self, name: str) -> BasisPending:
        """Return the error that says how far it is."""
        passed = 0.0 if self.started is None else time.monotonic() - self.started
        left = passed / self.share * (1 - self.share) if self.share else _FIRST_GUESS_S
        seconds = min(max(1, round(left)), _MOST_S)
        return BasisPending(
            f"{name} is being computed from the base's weights, {self.share:.0%} are done; it is "
            f"kept on disk afterwards. Try again in {seconds} s",
            retry_after_s=seconds,
        )


class BasisProcesses:
    """Starts a process for each basis that is asked for and not kept yet; safe from any thread.

    Args:
        folder: where bases are kept, of all base models.
        device: where the base is; bases are computed there if there is room.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder, self._device = folder, str(device)
        self._tasks: dict[str, _Task] = {}
        self._lock = threading.Lock()
        self._running = threading.Semaphore(_AT_ONCE)
        self._closed = False

    def __call__(self, derived: Derived, weights: BaseWeights) -> NoReturn:
        """Have `derived` computed.

        Raises:
            BasisPending: always, unless that failed; it says when to try again.
            InvalidAdapter: the weights do not allow it.
        """
        with self._lock:
            task = self._tasks.get(derived.name)
            if task is None and not self._closed:
                task = self._tasks[derived.name] = _Task()
                threading.Thread(
                    target=self._run, args=(task, derived, weights), daemon=True
                ).start()
        if task is not None and task.fault is not None:
            raise task.fault
        raise (task or _Task()).pending(derived.name)

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            self._closed = True
            processes = [task.process for task in self._tasks.values() if task.process]
        for process in processes:
            _kill(process)

    def _run(self, task: _Task, derived: Derived, weights: BaseWeights) -> None:
        with self._running:
            fault = self._computed(task, derived, weights)
        with self._lock:
            if isinstance(fault, InvalidAdapter):
                task.fault = fault  # it would fail again
            else:
                del self._tasks[derived.name]

    def _computed(
        self, task: _Task, derived: Derived, weights: BaseWeights
    ) -> InvalidAdapter | None:
        """Compute in a process of its own; return why the weights do not allow it, if so."""
        with self._lock:
            if self._closed:
                return None
            task.process = process = _started()
            task.started = time.monotonic()
        _LOG.info("%s: computed from the base's weights in process %d", derived.name, process.pid)
        try:
            last = self._conversation(task, process, derived, weights)
        except OSError:  # it has ended
            last = None
        finally:
            _kill(process)
            with suppress(BrokenPipeError):  # of what it has not read
                process.communicate()
        seconds = time.monotonic() - task.started
        if last is None:
            if not self._closed:
                _LOG.error("%s: its process ended with %s", derived.name, process.returncode)
            return None
        if "fault" in last:
            return InvalidAdapter(last["fault"])
        _LOG.info("%s: ready after %.0f s", derived.name, seconds)
        return None

    def _conversation(
        self,
        task: _Task,
        process: "subprocess.Popen[bytes]",
        derived: Derived,
        weights: BaseWeights,
    ) -> dict[str, Any] | None:
        """Answer what a process asks for; return its last word, None if it ends without one."""
        assert process.stdin is not None
        assert process.stdout is not None
        request = request_of(derived, weights, self.folder, self._device)
        process.stdin.write(request.encode() + b"\n")
        process.stdin.flush()
        for line in process.stdout:
            said: dict[str, Any] = json.loads(line)
            if "weight" in said:
                weight = weights.weight(said["weight"]).to("cpu", torch.float32).contiguous()
                process.stdin.write(weight.numpy().data.cast("B"))
                process.stdin.flush()
            elif "share" in said:
                _note(task, derived.name, said["share"])
            else:
                return said
        return None


def _note(task: _Task, name: str, share: float) -> None:
    """Take note of how far a computation is; log it from time to time."""
    task.share = share
    if share - task.logged >= _LOGGED_SHARE:
        task.logged = share
        _LOG.info("%s: %.0f%% are done", name, 100 * share)


def _started() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        tied([sys.executable, "-m", _MODULE]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C ends the server first, and that ends it
    )


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
