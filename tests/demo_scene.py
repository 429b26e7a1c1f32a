"""The demo as a process, started as README says, on a free port."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("overtone")
_START_S = 90


@contextmanager
def running_demo(data: Path) -> Iterator[tuple[int, str]]:
    """Give the port and what the demo printed by the time that it was ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = data / "log"
    command = [str(PROGRAM), "demo", "--port", str(port), "--data", str(data)]
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            deadline = time.monotonic() + _START_S
            while "Overtone is ready" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield port, log.read_text()
        finally:
            process.send_signal(signal.SIGINT)
            code = process.wait(60)
    assert code == 130, log.read_text()  # ended by Ctrl-C, as shells count
