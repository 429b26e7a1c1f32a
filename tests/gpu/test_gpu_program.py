"""The program `gpu` stays alive without a GPU: the same program over a small base on the CPU."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.programs import gpu
from bench.programs.gpu_base import of_nothing_much
from server_parts import torch_threads

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


def test_every_figure_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    report = gpu.Report(budget_s=100)
    with torch.inference_mode():
        gpu.measure_all(report, of_nothing_much(), rounds=1, rows=4, with_tests=False)
    assert report.reasons == {}
    assert set(gpu.names_of_decode()) <= set(report.values)
    assert None not in report.values.values()
    assert report.values["all of them right"] is True
    assert report.values["adapters in 16 GB"] * report.values["bytes an adapter"] <= 100_000
    assert "tokens/s" in capsys.readouterr().err


def test_a_figure_that_fails_is_null_with_its_reason_and_the_others_are_taken() -> None:
    report = gpu.Report(budget_s=100)

    def fails() -> dict[str, Any]:
        raise RuntimeError("out of memory\nand more")

    report.take(("a", "b"), fails)
    report.take(("c",), lambda: {"c": 1})
    assert report.values == {"a": None, "b": None, "c": 1}
    assert report.reasons == dict.fromkeys(("a", "b"), "RuntimeError: out of memory")


def test_without_time_nothing_is_begun() -> None:
    report = gpu.Report(budget_s=-1)
    report.take(("a",), lambda: {"a": 1})
    assert report.values == {"a": None}
    assert report.reasons == {"a": "no time was left"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="would measure for minutes")
def test_without_a_gpu_the_last_line_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["gpu"])
    gpu.main()
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["values"] == {}
    assert "no GPU" in told["reasons"]["all"]


def test_the_script_is_a_script() -> None:
    script = ROOT / "bench" / "gpu.sh"
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    assert script.stat().st_mode & 0o111
