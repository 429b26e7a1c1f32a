"""The data that version 0.1 wrote are served by this version, and are its own from then on.

`data_of_0_1/` was written by the last commit of 0.1.0 (its server, over REST, on the tests' tiny
Llama): two versions of `poet`, of which `prod` is the first, `clerk`, a training file and a job
that waits. The answers below are those that it gave.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from program import Program
from registry.connect import connect
from registry.store import schema

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
DATA = Path(__file__).parent / "data_of_0_1"
TOKENS = {
    "poet": [216, 97, 129, 15, 135, 221, 223, 8],
    "poet@prod": [151, 107, 109, 51, 58, 51, 42, 86],
    "clerk": [58, 179, 80, 156, 58, 17, 129, 27],
}
FILE, JOB = "file-852ef222504ee217f6183339", "ftjob-a7bb2abf93455155b3cd8dfa"


def test_what_version_0_1_stored_is_served_and_upgraded(
    base_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(DATA, data)
    with connect("embedded", data) as registry:
        assert registry.ownership.check_schema() == 0
    settings = {"calibration_s": 0, "kv_bytes": 1 << 26}
    program = Program(base_folder("llama"), data, tmp_path / "log", settings=settings)
    try:
        assert {name: program.tokens(name) for name in TOKENS} == TOKENS
        assert b'{"text": "one"}' in program.http.get(f"/v1/files/{FILE}/content").content
        job = program.http.get(f"/v1/fine_tuning/jobs/{JOB}").json()
        assert (job["status"], job["training_file"]) == ("queued", FILE)
        listed = program.http.get("/v1/adapters").json()["data"]
        assert [each["name"] for each in listed] == ["clerk", "poet"]
        assert program.http.delete("/v1/adapters/clerk").status_code == 200
    finally:
        program.close()
    with connect("embedded", data) as registry:
        assert registry.ownership.check_schema() == schema.CURRENT
        registry.open_store()
        assert registry.claims.mend("tiny", now=2e9) == 0  # the line came along, too
        claimed = registry.claims.take("tiny", "worker", 0, now=2e9)
        assert claimed is not None
        assert claimed.id == JOB
