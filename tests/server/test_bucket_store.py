"""A server whose adapters' bytes are in a bucket of S3: moto's server, in a process of its own."""

import shutil
from pathlib import Path

import pytest

import spectra
from live import error_of, running, serving, settings_of
from s3_server import S3Server
from waiting import until


@pytest.fixture
def server(monkeypatch):
    """A server of S3 that the test may end."""
    server = S3Server()
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)
    yield server
    server.close()


def test_adapters_are_served_from_a_bucket_and_from_copies_while_it_is_away(
    base_folder, tmp_path: Path, server
) -> None:
    place = f"s3://{server.bucket()}/adapters"
    settings = settings_of(base_folder("llama"), tmp_path / "data", store=place, calibration_s=0)
    with serving(settings) as live:
        for number in range(2):
            assert live.upload(f"a{number}", spectra.files(number)).status_code == 201
        before = live.tokens("a0")
        assert live.upload("a0", spectra.files(0)).status_code == 200
    assert not list((tmp_path / "data" / "blobs").glob("[0-9a-f][0-9a-f]"))
    shutil.rmtree(tmp_path / "data" / "blob-cache")

    with serving(settings) as live:
        assert live.tokens("a0") == before  # fetched again
        server.close()
        assert live.tokens("a0") == before
        for answer in (live.complete("a1"), live.upload("a2", spectra.files(2))):
            assert answer.status_code == 503
            assert error_of(answer)["code"] == "registry_unavailable"
            assert "s3" not in error_of(answer)["message"].lower()
        assert live.http.get("/v1/adapters/a2").status_code == 404


def test_a_bucket_that_is_not_there_is_no_start(
    base_folder, tmp_path: Path, server, caplog
) -> None:
    place = "s3://bucket-that-is-not-there"
    settings = settings_of(base_folder("llama"), tmp_path / "data", store=place, calibration_s=0)
    with running(settings) as live:
        until(lambda: "its log has the reason" in live.http.get("/health/ready").text)

    assert "Traceback" not in caplog.text
    (said,) = [each.message for each in caplog.records if "cannot serve" in each.message]
    assert f"the store {place} cannot be used: there is no such bucket" in said
