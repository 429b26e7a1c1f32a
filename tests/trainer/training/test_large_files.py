"""A file of two hundred megabytes is checked and read in the memory of its longest record."""

import subprocess
import sys
from pathlib import Path

import pytest

_SIZE = 200 << 20
_BOUND = 48 << 20
#: Prints by how much reading has raised the greatest resident size.
_PROGRAM = """
import resource, sys
from pathlib import Path
from registry.training_data.checks import check_lines
from trainer.training.data import open_rows

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

path = Path(sys.argv[1])
before = peak()
with path.open("rb") as file:
    report = check_lines(file)
assert not report.faults, report.shown()
rows = open_rows(path)
assert len(rows) == report.num_examples
assert all(rows.row(number)["text"] for number in range(0, len(rows), 997))
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_large_file_is_never_in_memory(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "large"
    text = "no line of this file is like another and there are many of them " * 3
    line = '{{"text": "{0} {1}"}}\n' if kind == "jsonl" else "{0} {1},{0}\n"
    with path.open("w") as out:
        if kind == "csv":
            out.write("text,label\n")
        for number in range(_SIZE // len(text)):
            out.write(line.format(number, text))
    command = [sys.executable, "-c", _PROGRAM, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < _BOUND
