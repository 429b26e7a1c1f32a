"""Freed memory stays: a block that is taken again is not cleared again."""

import platform
import subprocess
import sys

import pytest

_PROGRAM = """
import resource
import numpy as np
from adapters_core.malloc import keep_freed_memory
assert keep_freed_memory()
def touch():
    for _ in range(50):
        blocks = [np.ones(1 << 18, dtype=np.float32) for _ in range(16)]
        del blocks
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_blocks_of_megabytes_are_taken_again_without_fresh_pages() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 1000  # untold, all 4,096 pages fifty times
