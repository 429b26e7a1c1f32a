"""The process of one job, as its worker controls it."""

import os
import signal
import subprocess
import sys

from trainer.process.child_task import ChildTask
from trainer.process.heartbeat import HeartbeatMonitor

#: Variables from which the libraries under torch read their number of threads.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


class JobProcess:
    """A process that is started now; see trainer/job/child.py.

    It has a session of its own: Ctrl-C reaches the worker alone, which then ends the process.

    Args:
        task: written to its standard input.
    """

    def __init__(self, task: ChildTask) -> None:
        count = task.settings.rank_threads
        threads = {} if count is None else dict.fromkeys(_THREADS, str(count))
        reading, writing = os.pipe()
        self._heartbeats = HeartbeatMonitor(reading)
        task = task.model_copy(update={"heartbeat": writing})
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trainer.job.child"],
                stdin=subprocess.PIPE,
                env={**os.environ, **threads},
                pass_fds=(writing,),
                start_new_session=True,
                text=True,
            )
        finally:
            os.close(writing)
        assert self._process.stdin is not None
        try:
            with self._process.stdin as pipe:
                pipe.write(task.model_dump_json())
        except BrokenPipeError:  # it has ended already, which `wait` reports
            pass

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code; minus the signal's number if one ended it; None while it runs."""
        return self._process.poll()

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        code = self.code
        if code is None or code >= 0:
            return f"code {code}"
        name = signal.Signals(-code).name
        hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return f"{name}{hint}"

    def wait(self, timeout_s: float) -> bool:
        """Wait so many seconds at most and return whether it has ended."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._heartbeats.poll()
            return False
        return True

    @property
    def silent_s(self) -> float:
        """Seconds since its last heartbeat, as counted by `wait`."""
        return self._heartbeats.silent_s

    def ask_to_stop(self) -> None:
        """Send SIGTERM: the process writes a checkpoint and ends."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it, if it has not ended, and wait for its end."""
        self._process.kill()
        self._process.wait()
        self._heartbeats.close()
