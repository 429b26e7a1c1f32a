"""A registry that comes back with other data: what is not in them is not served."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import spectra
from live import FILE
from program import Program
from redis_site import REDIS, RedisSite
from waiting import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.redis,
    pytest.mark.skipif(not REDIS.exists(), reason="needs redis-server"),
    pytest.mark.timeout(600),
]
QUICK = {"calibration_s": 0, "kv_bytes": 1 << 26}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisSite]:
    made = RedisSite(tmp_path_factory.mktemp("replaced") / "redis")
    yield made
    made.kill()


@pytest.fixture(scope="module")
def empty(site: RedisSite, program: Program) -> Path:
    """A copy of the registry's data before the first upload."""
    return site.copy()


@pytest.fixture(scope="module")
def program(
    base_folder: Callable[[str], Path],
    site: RedisSite,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Program]:
    folder = tmp_path_factory.mktemp("served")
    made = Program(base_folder("llama"), folder / "data", folder / "log", site.url, QUICK)
    yield made
    made.close()


def digest_of(program: Program, reference: str) -> str | None:
    """Return the digest under which a name is answered; None if it is 404, or 503's code."""
    body = {"model": reference, "prompt": "Once", "max_tokens": 1}
    answer = program.http.post("/v1/completions", json=body)
    if answer.status_code == 404:
        return None
    if answer.status_code == 503:  # connections from before the registry's end
        code: str = answer.json()["error"]["code"]
        return code
    assert answer.status_code == 200, answer.text
    found: str = answer.json()["overtone"]["digest"]
    return found


def uploaded(program: Program, name: str, seed: int) -> None:
    """Upload, as soon as the registry is heard again."""
    until(lambda: program.upload(name, spectra.files(seed)).status_code in (200, 201))


def test_an_older_copy_of_the_data_is_answered_from_and_nothing_later(
    program: Program, site: RedisSite, empty: Path
) -> None:
    """As after a backup of the registry alone was restored, or a failover to a late replica."""
    assert program.upload("poet", spectra.files(1)).status_code == 201
    first = digest_of(program, "poet")
    older = site.copy()
    assert program.upload("poet", spectra.files(2)).status_code == 201
    assert program.upload("clerk", spectra.files(3)).status_code == 201
    later = program.http.get("/v1/adapters/clerk").json()["digest"]
    assert digest_of(program, "poet") != first
    assert digest_of(program, "clerk") == later

    site.restart_with(older)
    until(lambda: digest_of(program, "clerk") is None)
    until(lambda: digest_of(program, "poet") == first)
    assert digest_of(program, "poet@2") is None
    assert digest_of(program, f"clerk@{later}") is None
    assert blob_of(program, later).exists()  # its bytes stay

    uploaded(program, "clerk", 3)
    assert digest_of(program, "clerk") == later


def test_a_registry_that_was_killed_and_comes_back_without_its_data_has_no_names(
    program: Program, site: RedisSite, empty: Path
) -> None:
    uploaded(program, "kept", 4)
    digest = digest_of(program, "kept")
    assert digest is not None
    site.restart_with(None)
    until(lambda: digest_of(program, "kept") is None)
    until(lambda: program.http.get("/v1/adapters").status_code == 200)
    assert program.http.get("/v1/adapters").json()["data"] == []
    assert blob_of(program, digest).exists()
    site.restart_with(empty)  # with its id again


def test_another_registrys_data_are_never_answered_with_this_stores_bytes(
    program: Program, site: RedisSite, empty: Path, tmp_path: Path
) -> None:
    """The same name means other bytes there, which this store does not have."""
    uploaded(program, "shared-name", 5)
    own = digest_of(program, "shared-name")
    copy = site.copy()
    elsewhere = RedisSite(tmp_path / "elsewhere")
    stranger = Program(program.base, tmp_path / "data", tmp_path / "log", elsewhere.url, QUICK)
    try:
        assert stranger.upload("shared-name", spectra.files(6)).status_code == 201
        other = elsewhere.copy()
    finally:
        stranger.close()
        elsewhere.kill()

    site.restart_with(other)
    body = {"model": "shared-name", "prompt": "Once", "max_tokens": 1}
    until(lambda: program.http.post("/v1/completions", json=body).status_code in (404, 500))
    site.restart_with(copy)
    until(lambda: program.http.post("/v1/completions", json=body).status_code == 200)
    assert digest_of(program, "shared-name") == own


def blob_of(program: Program, digest: str) -> Path:
    name = digest.removeprefix("sha256:")
    return program.data / "blobs" / name[:2] / name / FILE
