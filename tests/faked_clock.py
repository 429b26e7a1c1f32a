"""A wall clock that is set while a test's processes run; monotonic clocks go on as they are.

In Python's processes `time.time` is exchanged before anything is imported; a Redis gets Debian's
libfaketime. (That one in Python breaks `time.sleep`, which waits for a moment of a clock that the
library then counts wrongly.)
"""

from pathlib import Path

_FOUND = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
LIBRARY = _FOUND[0] if _FOUND else None
#: Python imports a module of this name by itself, before a program.
_MODULE = """
import time
from pathlib import Path

_file, _time, _time_ns = Path({file!r}), time.time, time.time_ns
time.time = lambda: _time() + int(_file.read_text())
time.time_ns = lambda: _time_ns() + 10**9 * int(_file.read_text())
"""


class FakedClock:
    """The clock of all processes that are started with its variables.

    Args:
        folder: of its own; made here.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder, self._file = folder, folder / "offset"
        (folder / "sitecustomize.py").write_text(_MODULE.format(file=str(self._file)))
        self.jump_to(0)

    def jump_to(self, seconds: int) -> None:
        """Have the clock be so far ahead of the machine's from now on."""
        part = self._file.with_suffix(".part")
        part.write_text(f"{seconds:+d}\n")
        part.replace(self._file)

    def of_python(self, path: str = "") -> dict[str, str]:
        """Return variables with which a Python program has this clock; `path` are its imports."""
        return {"PYTHONPATH": ":".join(filter(None, [str(self._folder), path]))}

    def of_redis(self) -> dict[str, str]:
        """Return variables with which a Redis has this clock."""
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
