"""The program for a GPU, on a CPU: every figure is there, and the interpreted kernels agree."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")


@pytest.mark.slow
def test_every_figure_is_there_and_interpreted_kernels_agree_with_torch() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "bench.programs.gpu", "--tiny", "--interpret"]
    ran = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=280, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    told = json.loads(ran.stdout.splitlines()[-1])
    assert told["missing"] == {}
    errors = {row["figure"]: row["error"] for row in told["rows"] if "error" in row}
    assert {f"kernels {name}" for name in ("fourierft", "loca", "waveletft", "lora")} <= set(errors)
    # Float32 sums of some hundred terms in another order.
    assert all(error < 1e-5 for error in errors.values() if error is not None), errors
