"""A real server's data: backed up under uploads, destroyed, restored, served again."""

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

import spectra
from batches_made import lines, request
from program import Program
from server.cli.backup_commands import backup, restore
from waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
REDIS = Path("/usr/bin/redis-server")
QUICK = {"calibration_s": 0, "kv_bytes": 1 << 26}
NAMES = ("poet", "org/clerk")


@dataclass
class Site:
    """All that lies on the disks of one installation."""

    folder: Path
    kind: str
    redis: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return "embedded" if self.kind == "embedded" else f"unix://{self.folder}/redis.sock"

    def start(self) -> None:
        self.folder.mkdir()
        if self.kind == "redis":
            place = ["--unixsocket", f"{self.folder}/redis.sock", "--dir", str(self.folder)]
            command = [str(REDIS), "--port", "0", *place, "--save", "", "--appendonly", "yes"]
            self.redis = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            until(lambda: (self.folder / "redis.sock").exists())

    def destroy(self) -> None:
        self.end()
        shutil.rmtree(self.folder)

    def end(self) -> None:
        if self.redis is not None:
            self.redis.kill()
            self.redis.wait(30)
            self.redis = None

    def command(self, command: Callable[..., None], *words: str) -> Result:
        app = typer.Typer()
        app.command()(command)
        place = ["--registry", self.url, "--data", str(self.folder / "data")]
        return CliRunner().invoke(app, [*words, *place])


@pytest.fixture(
    params=[
        "embedded",
        pytest.param(
            "redis",
            marks=[
                pytest.mark.redis,
                pytest.mark.skipif(not REDIS.exists(), reason="needs redis-server"),
            ],
        ),
    ]
)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site", request.param)
    made.start()
    yield made
    made.end()


def fill(program: Program) -> None:
    """Have adapters, a batch that is over, and a job that waits for a worker."""
    for i, name in enumerate(NAMES):
        assert program.upload(name, spectra.files(i)).status_code == 201
        assert program.upload(name, spectra.files(10 + i)).status_code == 201
    put = program.http.put("/v1/adapters/poet/aliases/prod", json={"version": 1})
    assert put.status_code in (200, 201), put.text
    rows = b'{"text": "one"}\n{"text": "two"}\n'
    file = file_of(program, "fine-tune", rows)
    body = {"model": "tiny", "training_file": file, "suffix": "later"}
    job = program.http.post("/v1/fine_tuning/jobs", json=body)
    assert job.status_code == 200, job.text
    ours = file_of(program, "batch", lines(*(request(i, model="poet") for i in range(3))))
    body = {"input_file_id": ours, "endpoint": "/v1/completions", "completion_window": "24h"}
    assert program.http.post("/v1/batches", json=body).status_code == 200
    until(lambda: program.http.get("/v1/batches").json()["data"][0]["status"] == "completed")


def file_of(program: Program, purpose: str, content: bytes) -> str:
    files = {"file": ("in.jsonl", content, "application/jsonl")}
    answer = program.http.post("/v1/files", data={"purpose": purpose}, files=files)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def told(program: Program) -> dict[str, Any]:
    """Return all that a server says of what it has stored, and what its adapters answer."""
    paths = ["adapters", "fine_tuning/jobs", "files", "batches"]
    lists = {path: program.http.get(f"/v1/{path}").json() for path in paths}
    for each in lists["adapters"]["data"]:
        del each["residency"]  # of this process
    files = [each["id"] for each in lists["files"]["data"]]
    contents = {id_: program.http.get(f"/v1/files/{id_}/content").content for id_ in files}
    assert len(contents) == 3
    names = [*NAMES, "poet@prod", "org/clerk@1"]
    return {"lists": lists, "contents": contents, "tokens": {n: program.tokens(n) for n in names}}


@contextmanager
def uploading(program: Program) -> Iterator[list[str]]:
    """Upload adapters during the block; yields the names that were acknowledged, some of them."""
    told: list[str] = []
    over = threading.Event()

    def go_on() -> None:
        for i in range(10_000):
            assert program.upload(f"meanwhile-{i}", spectra.files(100 + i)).status_code == 201
            told.append(f"meanwhile-{i}")
            if over.is_set():
                return

    uploads = threading.Thread(target=go_on)
    uploads.start()
    try:
        until(lambda: len(told) > 3)
        yield told
    finally:
        over.set()
        uploads.join(60)


def test_what_was_backed_up_under_uploads_is_served_again_after_all_was_destroyed(
    base_folder: Callable[[str], Path], site: Site, tmp_path: Path
) -> None:
    base, place = base_folder("llama"), tmp_path / "backup"

    def serve() -> Program:
        return Program(base, site.folder / "data", tmp_path / "log", site.url, QUICK)

    program = serve()
    try:
        fill(program)
        before = told(program)
        with uploading(program) as uploaded:
            known = [*uploaded]
            done = site.command(backup, str(place), "--json")
        assert done.exit_code == 0, done.output
        assert json.loads(done.output)["missing"] == []
        refused = site.command(restore, str(place), "--force")
        assert refused.exit_code == 1
        assert "stop them first" in refused.output
    finally:
        program.kill()
        program.http.close()
    site.destroy()

    site.start()
    done = site.command(restore, str(place))
    assert done.exit_code == 0, done.output
    program = serve()
    try:
        after = told(program)
        listed = {each["name"] for each in after["lists"]["adapters"]["data"]}
        assert {*NAMES, *known} <= listed
        for kept in (before, after):
            of_adapters = kept["lists"]["adapters"]["data"]
            kept["lists"]["adapters"] = [each for each in of_adapters if each["name"] in NAMES]
        assert after == before
        for name in listed:
            program.tokens(name)
    finally:
        program.close()
