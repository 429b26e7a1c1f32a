"""A job's process lowers its priority, and its session's where the system schedules sessions."""

import subprocess
import sys
from pathlib import Path

import pytest

from trainer.process import priority as niceness

GROUP = Path("/proc/self/autogroup")
READ = f"Path({str(GROUP)!r}).read_text().strip()"
PROGRAM = """
import os
from pathlib import Path
from trainer.process.priority import lower_priority
lower_priority({nice}, Path({group!r}))
print(os.nice(0))
"""

needs_groups = pytest.mark.skipif(not GROUP.exists(), reason="this system has no autogroups")


def stepped_back(nice: int, group: Path = GROUP, then: str = "", under: str = "") -> list[str]:
    """Return what a process says that steps back, its niceness first, then what `then` prints.

    It is the first one of a session of its own, unless a program is, `under` which it is started.
    """
    code = PROGRAM.format(nice=nice, group=str(group)) + then
    first = ["-c", under, sys.executable] if under else []
    command = [sys.executable, *first, "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, start_new_session=True
    )
    return done.stdout.split("\n")[:-1]


def now() -> int:
    """Return this process's own niceness."""
    return int(subprocess.run(["nice"], capture_output=True, text=True, check=True).stdout)


@needs_groups
def test_a_session_of_its_own_gets_the_niceness_of_its_process() -> None:
    nice, group = stepped_back(7, then=f"print({READ})\n")
    assert int(nice) == min(19, now() + 7)
    assert group.endswith(f" nice {nice}")


@needs_groups
def test_a_session_that_others_share_keeps_its_share() -> None:
    run = "import subprocess, sys\nfrom pathlib import Path\n"
    run += f"print({READ}, flush=True)\nsubprocess.run(sys.argv[1:], check=True)\nprint({READ})\n"
    before, nice, after = stepped_back(7, under=run)
    assert int(nice) == min(19, now() + 7)
    assert before == after


def test_niceness_zero_changes_nothing(tmp_path: Path) -> None:
    group = tmp_path / "autogroup"
    group.write_text("as it was")
    (nice,) = stepped_back(0, group)
    assert int(nice) == now()
    # A test that runs niced hands its own niceness on.
    assert group.read_text() == ("as it was" if now() == 0 else nice)


def test_a_system_without_groups_or_with_a_closed_proc_is_no_obstacle(tmp_path: Path) -> None:
    (without,) = stepped_back(3, tmp_path / "missing")
    (closed,) = stepped_back(3, tmp_path)  # a folder cannot be written: an OSError
    assert int(without) == int(closed) == min(19, now() + 3)


class Busy(type(Path())):  # type: ignore[misc]
    """A file that is busy twice, as the kernel's is within a tenth of a second of another's."""

    words: list[str] = []

    def write_text(self, data: str, *rest: object, **more: object) -> int:
        self.words.append(data)
        if len(self.words) < 3:
            raise BlockingIOError
        return len(data)


def test_a_busy_kernel_is_asked_again() -> None:
    niceness._write(Busy("group"), 19)
    assert Busy.words == ["19"] * 3
