"""A server whose disk is full says so on every route that writes, and serves on."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

import spectra
from disks import fill, small_disk
from live import Live, parts, serving, settings_of
from waiting import until

RESERVE = 2 << 20
LINES = b'{"prompt": "a", "completion": "b"}\n' * 10


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "48m") as disk:
        yield disk


@pytest.fixture
def server(base_folder: Callable[[str], Path], disk: Path) -> Iterator[Live]:
    settings = settings_of(
        base_folder("llama"), disk / "data", calibration_s=0, reserve_bytes=RESERVE
    )
    with serving(settings) as live:
        yield live


def post_file(server: Live) -> httpx2.Response:
    form = {"purpose": "fine-tune"}
    return server.http.post("/v1/files", data=form, files={"file": ("a.jsonl", LINES)})


def writes(server: Live, file: str, job: str) -> dict[str, Callable[[], httpx2.Response]]:
    """Return a request for every route that writes what a caller gives it."""
    http = server.http
    named = {"name": "new"}
    alias = {"version": 1}
    new_job = {"model": "tiny", "training_file": file}
    return {
        "upload": lambda: http.post("/v1/adapters", data=named, files=parts(spectra.files(9))),
        "alias": lambda: http.put("/v1/adapters/poet/aliases/prod", json=alias),
        "rollback": lambda: http.post("/v1/adapters/poet/rollback"),
        "file": lambda: post_file(server),
        "job": lambda: http.post("/v1/fine_tuning/jobs", json=new_job),
        "resume": lambda: http.post(f"/v1/fine_tuning/jobs/{job}/resume"),
    }


def test_every_route_that_writes_says_that_the_disk_is_full_and_the_rest_goes_on(
    server: Live, disk: Path
) -> None:
    for i in range(2):
        assert server.upload("poet", spectra.files(i)).status_code == 201
    first, second = (post_file(server).json()["id"] for _ in range(2))
    body = {"model": "tiny", "training_file": first}
    job = server.http.post("/v1/fine_tuning/jobs", json=body).json()["id"]
    assert server.http.post(f"/v1/fine_tuning/jobs/{job}/pause").status_code == 200
    tokens = server.tokens("poet")
    ballast = disk / "data" / "registry" / "ballast"
    until(ballast.exists)
    embedded = server.service.registry.server
    assert embedded is not None
    pid = embedded.pid
    assert server.metric("overtone_disk_free_bytes") > RESERVE

    rubbish = fill(disk)
    until(lambda: not ballast.exists())
    os.truncate(rubbish, rubbish.stat().st_size - 1)
    assert server.metric("overtone_disk_free_bytes") < RESERVE
    assert server.metric("overtone_disk_reserve_bytes") == RESERVE
    for name, ask in writes(server, first, job).items():
        answer = ask()
        said = (name, answer.status_code, answer.json()["error"]["code"])
        assert said == (name, 507, "storage_full")
    assert server.tokens("poet") == tokens
    for path in ("/v1/adapters", "/v1/files", f"/v1/fine_tuning/jobs/{job}", "/health/ready"):
        assert server.http.get(path).status_code == 200
    assert server.http.get("/v1/adapters/new").status_code == 404

    assert server.http.delete(f"/v1/files/{second}").status_code == 200  # that makes room
    assert server.http.delete("/v1/adapters/poet/versions/1").status_code == 200
    assert server.http.post(f"/v1/fine_tuning/jobs/{job}/cancel").status_code == 200

    rubbish.unlink()
    assert server.upload("poet", spectra.files(5)).status_code == 201
    again = {"model": "tiny", "training_file": first}
    job = server.http.post("/v1/fine_tuning/jobs", json=again).json()["id"]
    server.http.post(f"/v1/fine_tuning/jobs/{job}/pause")
    done = {name: ask().status_code for name, ask in writes(server, first, job).items()}
    assert done == {
        "upload": 201,
        "alias": 404,  # of version 1, deleted above
        "rollback": 200,
        "file": 200,
        "job": 200,
        "resume": 200,
    }
    assert embedded.pid == pid


@pytest.mark.parametrize("where", ["store", "temporary files"])
def test_a_disk_that_fills_up_during_an_upload_leaves_nothing_of_it(
    base_folder: Callable[[str], Path], disk: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store or the temporary files on it alone: the registry's disk has room."""
    data = disk.parent / "data"
    store = disk / "store" if where == "store" else data / "blobs"
    if where == "temporary files":
        monkeypatch.setattr("tempfile.tempdir", str(disk))
    settings = settings_of(
        base_folder("llama"), data, store=store, calibration_s=0, reserve_bytes=0
    )
    with serving(settings) as server:
        assert server.upload("old", spectra.files(0)).status_code == 201
        before = _files_in(store)
        rubbish = fill(disk)

        for answer in (server.upload("new", spectra.files(1)), post_file(server)):
            if answer.status_code == 200:  # it is small enough to stay in memory
                assert where == "temporary files"
                continue
            assert (answer.status_code, answer.json()["error"]["code"]) == (507, "storage_full")
        assert server.http.get("/v1/adapters/new").status_code == 404
        assert server.tokens("old")
        rubbish.unlink()
        kept = {path for path in _files_in(store) if "files" not in path.parts}
        assert kept == {path for path in before if "files" not in path.parts}
        assert server.upload("new", spectra.files(1)).status_code == 201
        assert post_file(server).status_code == 200
    assert shutil.disk_usage(disk).free > 0


def _files_in(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and path.suffix == ".safetensors"}
