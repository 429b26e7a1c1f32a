"""What other processors would do: the start's check tells the truth under every instruction set.

Each setting runs in processes of its own. What the check says is held against the tests of
invariance, which run over the multiple of rows that it found; the canary and PEFT's golden deltas
must be right everywhere.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from as_intel import as_intel
from program import Program
from server.processor.choice import VARIABLE, this_processor

ROOT = Path(__file__).parents[3]
FLAGS = this_processor().flags
CHECK = """
import json, torch, tiny, adapters_core.methods
from adapters_core.base.spec import spec_of
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.canary import run_canary, usual_methods
from server.processor.row_check import check_products
torch.set_num_threads(1)
model = tiny.model("llama")
shapes, bases = set(spec_of(model, "tiny").targets.values()), BasisCache(torch.device("cpu"))
run_canary(usual_methods(), shapes, bases)
report = check_products(model, usual_methods(), shapes, bases)
print(json.dumps({"moved": report.moved, "multiple": report.multiple}))
"""
RIGHT_EVERYWHERE = (
    "tests/adapters_core/layers/test_canary.py",
    "tests/adapters_core/methods/test_peft_golden.py",
)
INVARIANCE = (
    "tests/server/engine/test_batch_invariance.py::"
    "test_a_row_has_the_same_bits_alone_in_a_crowd_and_in_pieces[llama]"
)
#: Name -> variables, whether as on an Intel processor, and the sets that it takes.
SETTINGS: dict[str, tuple[dict[str, str], bool, str]] = {
    "torch default": ({"ATEN_CPU_CAPABILITY": "default"}, False, ""),
    "torch AVX2": ({"ATEN_CPU_CAPABILITY": "avx2"}, False, "avx2"),
    "torch AVX-512": ({"ATEN_CPU_CAPABILITY": "avx512"}, False, "avx512f"),
    "oneDNN SSE4.1": ({"ONEDNN_MAX_CPU_ISA": "SSE41"}, False, ""),
    "oneDNN AVX2": ({"ONEDNN_MAX_CPU_ISA": "AVX2"}, False, "avx2"),
    "MKL SSE4.2": ({"MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}, False, ""),
    "MKL AVX2": ({"MKL_ENABLE_INSTRUCTIONS": "AVX2"}, False, "avx2"),
    "MKL compatible": ({VARIABLE: "COMPATIBLE"}, False, ""),
    "Intel": ({}, True, "avx2"),
    "Intel AVX2": ({"MKL_ENABLE_INSTRUCTIONS": "AVX2"}, True, "avx2"),
    "Intel AVX2 strict": ({VARIABLE: "AVX2,STRICT"}, True, "avx2"),
    "Intel AVX-512 strict": ({VARIABLE: "AVX512,STRICT"}, True, "avx512f"),
    "Intel AVX2 only, strict": (
        {VARIABLE: "AVX2,STRICT", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
        True,
        "avx2",
    ),
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def environment(name: str, folder: Path) -> dict[str, str]:
    """Return a setting's environment; skip where it cannot be had."""
    variables, is_intel, needed = SETTINGS[name]
    if needed and needed not in FLAGS:
        pytest.skip(f"this processor has no {needed}")
    preloaded = as_intel(folder) if is_intel else {}
    if preloaded is None:
        pytest.skip("no C compiler")
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, **preloaded, **variables}


def run(arguments: list[str], variables: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], env=variables, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("name", SETTINGS)
def test_what_the_start_says_of_rows_is_so(name: str, tmp_path: Path) -> None:
    variables = environment(name, tmp_path)
    report = json.loads(run(["-c", CHECK], variables).splitlines()[-1])
    print(f"{name}: {report}")  # noqa: T201  (pytest -s shows the table)
    if "strict" in name:
        assert report == {"moved": None, "multiple": 4}
    tests = [*RIGHT_EVERYWHERE, *([INVARIANCE] if report["moved"] is None else [])]
    variables["OVERTONE_TEST_ROW_MULTIPLE"] = str(report["multiple"])
    run(["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests], variables)


@pytest.mark.skipif(this_processor().needs_search, reason="takes its setting before it starts")
def test_a_server_whose_rows_move_looks_for_a_setting_and_starts_again_with_it(
    base_folder: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preloaded = as_intel(tmp_path)
    if preloaded is None or "avx2" not in FLAGS:
        pytest.skip("no C compiler, or no AVX2")
    monkeypatch.setenv("LD_PRELOAD", preloaded["LD_PRELOAD"])
    monkeypatch.delenv(VARIABLE, raising=False)
    log = tmp_path / "log"
    program = Program(
        base_folder("llama"),  # type: ignore[operator]
        tmp_path / "data",
        log,
        settings={"deterministic": "true"},
        start_s=400,
    )
    try:
        assert "overtone_batch_invariant 1.0" in program.http.get("/metrics").text
        assert "starting again" in log.read_text()
        kept = json.loads((tmp_path / "data" / "processor.json").read_text())
        assert [choice["multiple"] is not None for choice in kept.values()] == [True]
        program.kill()
        program.restart()
        assert log.read_text().count("starting again") == 1
        assert "overtone_batch_invariant 1.0" in program.http.get("/metrics").text
    finally:
        program.close()
