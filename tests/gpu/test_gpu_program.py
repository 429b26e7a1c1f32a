"""The program `gpu` stays alive without a GPU: the same program over a small base on the CPU."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters_core.gpu_kernels.running import interpreted
from bench.lib.counting import counted
from bench.lib.figures import Figures
from bench.programs import gpu
from bench.programs.gpu_agreement import merge_error, update_error
from bench.programs.gpu_base import GpuBase
from bench.programs.gpu_shape import of_llama_8b, of_nothing_much
from server_parts import torch_threads

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Every figure of the tiny run, as it was saved."""
    out = tmp_path_factory.mktemp("gpu") / "figures.jsonl"
    gpu.main(["--tiny", "--out", str(out)])
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    return {row["figure"]: row for row in lines}


def test_every_figure_is_taken_and_saved(rows: dict[str, dict[str, Any]]) -> None:
    assert [row for row in rows.values() if "reason" in row] == []
    kinds = [*gpu.KINDS, "merged qv", "half base"]
    assert {f"decode {kind}" for kind in kinds} <= set(rows)
    assert {f"profile {kind}" for kind in gpu.PROFILED} <= set(rows)
    assert rows["residents"]["right"] is True
    assert rows["residents"]["adapters"] * rows["residents"]["bytes of each"] <= 100_000
    for name in ("one layer", "first token lora", "merge fourierft seven", "generate"):
        assert all(value > 0 for key, value in rows[name].items() if key.endswith(("ms", "/s")))


def test_what_must_be_known_first_comes_first(rows: dict[str, dict[str, Any]]) -> None:
    names = list(rows)
    assert names[:3] == ["machine", "base of one layer", "one layer"]
    kernels = [names.index(f"kernels {name}") for name in gpu.METHODS]
    assert max(kernels) < min(i for i, name in enumerate(names) if name.startswith("decode"))


def test_a_step_without_a_recording_is_the_same(rows: dict[str, dict[str, Any]]) -> None:
    assert rows["one layer"]["max difference"] == 0  # on a CPU nothing is recorded


def test_kernels_are_held_against_torchs_way() -> None:
    pytest.importorskip("triton")
    with torch.inference_mode():
        base = GpuBase(of_nothing_much())
    shapes = dict(list(base.shapes("seven").items())[:2])
    linears = {path: base.injection.linears[path] for path in list(shapes)[1:]}
    with torch.inference_mode(), interpreted():
        for name in ("fourierft", "lora"):
            method = base.method(name)
            updates = update_error(method, shapes, base.bases, torch.float32)
            assert updates["linears"] == 2
            assert 0 < updates["error"] < 1e-5
            assert merge_error(method, linears, base.bases)["error"] < 1e-5


def test_the_large_base_goes_the_same_way_over_tensors_without_values(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    sizes = replace(of_llama_8b(), device=torch.device("meta"), layers=1)
    plan, figures = gpu.Plan(sizes, rounds=1, calls=1, rows=8, copy_bytes=1 << 20), Figures(100)
    with counted(), torch.inference_mode():
        gpu.measure_layer(figures, plan)
        base = gpu.made_base(figures, "base", sizes)
        assert base is not None
        assert not base.engine.has_own_attention
        for name in ("fourierft", "lora"):
            leases = base.factored(name, "qv", plan.rows)
            figures.take(f"decode {name}", partial(gpu.decode, base, plan, leases))
            figures.take(f"first {name}", partial(gpu.first_token, base, plan, name, tmp_path))
    assert figures.missing == {}


def test_a_cold_load_makes_no_new_bank(tmp_path: Path) -> None:
    with torch.inference_mode():
        base = GpuBase(of_nothing_much())
        files = base.write("fourierft", "qv", tmp_path / "adapter")
        leases = [base.load_factored(files) for _ in range(2)]
        banks = {id(lease.payload.bank) for lease in leases}
        assert len(banks) == 1
        base.forget(leases[1])
        again = base.load_factored(files)
        assert again.payload.slot == leases[1].payload.slot


def test_a_figure_that_fails_has_its_reason_and_the_others_are_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = Figures(100, tmp_path / "figures.jsonl")

    def fails() -> dict[str, Any]:
        raise RuntimeError("out of memory\nand more")

    figures.take("a", fails)
    figures.take("b", lambda: {"c": 1})
    assert figures.missing == {"a": "RuntimeError: out of memory"}
    saved = (tmp_path / "figures.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in saved] == figures.rows
    assert capsys.readouterr().out.splitlines() == saved
    assert figures.rows[1]["c"] == 1


def test_without_time_nothing_is_begun() -> None:
    figures = Figures(-1)
    figures.take("a", lambda: pytest.fail("begun"))
    assert figures.missing == {"a": "no time was left"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="would measure for minutes")
def test_without_a_gpu_the_last_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main([])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["rows"] == []
    assert "no GPU" in told["missing"]["all"]


def test_the_script_is_a_script() -> None:
    script = ROOT / "bench" / "gpu.sh"
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    assert script.stat().st_mode & 0o111
