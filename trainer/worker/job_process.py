"""The process of one job, seen from its worker."""

import os
import signal
import subprocess
import sys

from trainer.process.child_task import ChildTask
from trainer.process.heartbeat import HeartbeatMonitor

#: What the libraries under torch read their number of threads from.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


class JobProcess:
    """A process that is started now; see child.py.

    It is in a session of its own: Ctrl-C ends the worker first, and that ends it.

    Args:
        task: given to it on its standard input.
    """

    def __init__(self, task: ChildTask) -> None:
        count = task.settings.rank_threads
        threads = {} if count is None else dict.fromkeys(_THREADS, str(count))
        heard, said = os.pipe()
        self._silence = HeartbeatMonitor(heard)
        task = task.model_copy(update={"heartbeat": said})
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trainer.job.child"],
                stdin=subprocess.PIPE,
                env={**os.environ, **threads},
                pass_fds=(said,),
                start_new_session=True,
                text=True,
            )
        finally:
            os.close(said)
        assert self._process.stdin is not None
        try:
            with self._process.stdin as pipe:
                pipe.write(task.model_dump_json())
        except BrokenPipeError:  # it died at once; `wait` finds it
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
        """How it ended, for people."""
        code = self.code
        if code is None or code >= 0:
            return f"code {code}"
        name = signal.Signals(-code).name
        hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return f"{name}{hint}"

    def wait(self, timeout_s: float) -> bool:
        """Return whether it has ended, within so many seconds."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._silence.listen()
            return False
        return True

    @property
    def silent_s(self) -> float:
        """Seconds that were waited for it since it last said that it gets on."""
        return self._silence.seconds

    def ask_to_stop(self) -> None:
        """Have it write a checkpoint and end."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it now, if it has not ended, and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        self._silence.close()
