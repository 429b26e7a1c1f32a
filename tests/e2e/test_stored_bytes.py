"""Real programs on stores and registries: who may start, and what is left of every byte."""

import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import spectra
from program import PROGRAM, Program, environment
from registry.connect import connect

pytestmark = pytest.mark.timeout(240)
QUICK = {"calibration_s": 0, "kv_bytes": 1 << 26}


@pytest.mark.slow
def test_two_servers_that_start_at_once_on_a_new_registry_and_store_share_them(
    base_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    base = base_folder("llama")

    def start(i: int) -> Program:
        return Program(base, tmp_path / "data", tmp_path / f"log{i}", settings=QUICK)

    with ThreadPoolExecutor(2) as pool:
        programs = list(pool.map(start, range(2)))
    try:
        for i, program in enumerate(programs):
            assert program.upload(f"a{i}", spectra.files(i)).status_code == 201
        for program in programs:
            listed = program.http.get("/v1/adapters").json()["data"]
            assert {each["name"] for each in listed} == {"a0", "a1"}
            assert program.tokens("a0")
            assert program.tokens("a1")
    finally:
        for program in programs:
            program.close()
    assert len(list((tmp_path / "data" / "blobs").glob("??/" + "[0-9a-f]" * 64))) == 2


def test_a_server_and_a_worker_refuse_a_store_whose_registry_is_gone(
    base_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    data, base = tmp_path / "data", base_folder("llama")
    with connect("embedded", data) as registry:
        registry.ownership.settle()
        file = tmp_path / "coefficients"
        file.write_bytes(b"coefficients")
        for i in range(3):
            digest = "sha256:" + f"{i}" * 64
            registry.blobs.put(digest, file, b"{}")
            os.utime(registry.blobs.open(digest).file.parent, (1e9, 1e9))
    shutil.rmtree(data / "registry")
    before = sorted((data / "blobs").glob("??/*/*"))
    assert len(before) == 6

    for command in (["serve", "--port=0"], ["worker"]):
        words = [PROGRAM, *command, f"--base={base}", f"--data={data}"]
        done = subprocess.run(
            words, env=environment(), capture_output=True, text=True, timeout=100, check=False
        )
        assert done.returncode == 1
        said = done.stdout + done.stderr
        assert "the store belongs to the registry" in said
        assert f"overtone store adopt --registry embedded --data {data}" in said.replace("\n", "")
        assert "Traceback" not in said
    assert sorted((data / "blobs").glob("??/*/*")) == before
