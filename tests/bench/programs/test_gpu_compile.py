"""Every kernel of Triton's compiles for a GPU that is not here, spills nothing, and fits."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")

from adapters_core.gpu_kernels.running import Launch
from bench.lib.compiling import MOST_REGISTERS, SHARED_LIMITS, Compiled

ROOT = Path(__file__).parents[3]


def compiled(*arguments: str) -> list[dict[str, Any]]:
    """Return the rows of `gpu_cost --compile` in a process that compiles, where tests interpret."""
    command = [sys.executable, "-m", "bench", "gpu_cost", "--json", "--compile", *arguments]
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])["rows"]
    return rows


def launched() -> set[str]:
    """Return the kernels that any launch in the source names."""
    sources = [
        path.read_text()
        for package in ("adapters_core", "server")
        for path in (ROOT / package / "gpu_kernels").glob("*.py")
    ]
    return {name for text in sources for name in re.findall(r"\blaunch\(\s*(\w+),$", text, re.M)}


def check(rows: list[dict[str, Any]]) -> None:
    assert {row["kernel"] for row in rows} == launched()
    assert [row for row in rows if row["fits"] != "yes"] == []
    assert all(row["registers"] > 0 for row in rows)


def test_the_largest_of_each_kernel_fits_a_hopper_card() -> None:
    rows = compiled("90")
    check(rows)
    assert {row["sm"] for row in rows} == {90}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_shape_fits_a_hopper_and_an_ampere_card() -> None:
    rows = compiled("90", "80", "--every")
    check(rows)
    assert {row["sm"] for row in rows} == {80, 90}
    assert {row["size"] for row in rows if row["kernel"] == "synthesise"} == {1024, 4096, 14336}


@pytest.mark.parametrize(
    ("registers", "stack", "shared", "fits"),
    [
        (MOST_REGISTERS, 0, SHARED_LIMITS[80], True),
        (MOST_REGISTERS + 1, 0, 0, False),
        (32, 8, 0, False),
        (32, 0, SHARED_LIMITS[80] + 1, False),
    ],
)
def test_what_fits(registers: int, stack: int, shared: int, fits: bool) -> None:
    launch = Launch(None, (1,), {}, 0)
    assert Compiled(launch, 80, registers, stack, shared, 4).fits is fits
