"""A real server: its disk is full at any of its writes, or already at its start."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

import spectra
from disks import fill, small_disk
from program import Program
from redis_site import REDIS, RedisSite

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
QUICK = {"calibration_s": 0, "kv_bytes": 1 << 26, "reserve_bytes": 0}
PAGE = 4096
LINES = b'{"text": "a line of a file"}\n' * 400


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "4m") as disk:
        yield disk


def post_file(program: Program) -> httpx2.Response:
    form = {"purpose": "fine-tune"}
    return program.http.post("/v1/files", data=form, files={"file": ("a.jsonl", LINES)})


def stored(folder: Path) -> set[Path]:
    """Return all files of a store, but locks and its mark."""
    found = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {path for path in found if not any(part.startswith(".") for part in path.parts)}


def refused(answer: httpx2.Response) -> bool:
    """Return whether a write was refused; it is acknowledged otherwise."""
    if answer.status_code in (200, 201):
        return False
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "storage_full")
    return True


def test_a_disk_that_is_full_at_any_write_loses_nothing_and_leaves_nothing_half_done(
    base_folder: Callable[[str], Path], disk: Path, tmp_path: Path
) -> None:
    """One page more is free for each upload; the registry's disk has room."""
    store, settings = disk / "store", QUICK | {"store": disk / "store"}
    program = Program(base_folder("llama"), tmp_path / "data", tmp_path / "log", settings=settings)
    digests, files, outcomes = dict[str, str](), list[str](), list[bool]()
    try:
        for pages in range(12):
            before = stored(store)
            rubbish = fill(disk, pages * PAGE)
            answer = program.upload(f"poet-{pages}", spectra.files(pages))
            outcomes.append(refused(answer))
            if outcomes[-1]:
                assert stored(store) == before
            else:
                digests[f"poet-{pages}"] = answer.json()["digest"]
            before = stored(store)
            answer = post_file(program)
            outcomes.append(refused(answer))
            if outcomes[-1]:
                assert stored(store) == before
            else:
                files.append(answer.json()["id"])
            rubbish.unlink()
        assert {*outcomes[::2]} == {*outcomes[1::2]} == {True, False}
        check(program, digests, files)
        program.kill()
        program.restart()
        check(program, digests, files)
    finally:
        program.close()


def check(program: Program, digests: dict[str, str], files: list[str]) -> None:
    """Check that a server has what it has acknowledged, and no more."""
    listed = program.http.get("/v1/adapters").json()["data"]
    assert {each["name"]: each["digest"] for each in listed} == digests
    for name in digests:
        assert program.tokens(name)
    assert {each["id"] for each in program.http.get("/v1/files").json()["data"]} == {*files}
    for file in files:
        assert program.http.get(f"/v1/files/{file}/content").content == LINES


@pytest.mark.redis
@pytest.mark.skipif(not REDIS.exists(), reason="needs redis-server")
def test_a_server_starts_and_answers_on_a_full_disk(
    base_folder: Callable[[str], Path], disk: Path, tmp_path: Path
) -> None:
    redis = RedisSite(tmp_path / "redis")
    base, log = base_folder("llama"), tmp_path / "log"
    program = Program(base, disk / "data", log, redis.url, QUICK)
    try:
        assert program.upload("poet", spectra.files(1)).status_code == 201
        tokens = program.tokens("poet")
        program.close()
        rubbish = fill(disk)
        program = Program(base, disk / "data", log, redis.url, QUICK | {"calibration_s": 0.01})
        assert "cannot be written: No space left on device" in log.read_text()
        assert program.tokens("poet") == tokens
        assert refused(program.upload("clerk", spectra.files(2)))
        rubbish.unlink()
        assert not refused(program.upload("clerk", spectra.files(2)))
    finally:
        program.close()
        redis.kill()
