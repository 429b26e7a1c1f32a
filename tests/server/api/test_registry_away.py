"""A registry that is wrong ends the start; one that goes away later is told by /health/ready."""

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

import spectra
from live import running, serving, settings_of
from registry.redis.client import open_client
from registry.redis.embedded import find_binary
from server.settings import Settings
from waiting import until


class Server:
    """A registry of a test's own, with a password, to be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.place = f"unix://{folder}/registry.sock"
        self.url = f"{self.place}?password=correct"
        words = ["--port", "0", "--unixsocket", f"{folder}/registry.sock", "--dir", str(folder)]
        words += ["--requirepass", "correct", "--appendonly", "yes", "--save", ""]
        self._command = [str(find_binary()), *words]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        with open_client(self.url) as client:
            until(lambda: _answers(client))

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def settings(base_folder: Callable[[str], Path], tmp_path: Path, registry: Server) -> Settings:
    fixed = {"registry": registry.url, "calibration_s": 0, "registry_grace_s": 0.3}
    return settings_of(base_folder("llama"), tmp_path / "data", **fixed)


def test_a_wrong_password_ends_the_start_within_seconds_and_is_said(
    settings: Settings, registry: Server, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = settings.model_copy(update={"registry": f"{registry.place}?password=s3cret"})
    started = time.monotonic()
    with running(wrong) as live:
        until(lambda: "its log has the reason" in live.http.get("/health/ready").text)
        assert time.monotonic() - started < 5
    (said,) = [each.message for each in caplog.records if "cannot serve" in each.message]
    assert "it refuses the user or the password" in said
    assert "s3cret" not in caplog.text
    assert "Traceback" not in caplog.text


def test_a_registry_that_goes_away_is_told_after_the_grace_and_when_it_is_back(
    settings: Settings, registry: Server
) -> None:
    with serving(settings) as live:
        assert live.upload("known", spectra.files(0)).status_code == 201
        tokens = live.tokens("known")
        assert live.http.get("/health/ready").status_code == 200

        registry.kill()

        until(lambda: live.http.get("/health/ready").status_code == 503)
        told = live.http.get("/health/ready").json()["error"]
        assert told["code"] == "not_ready"
        assert "nothing listens at its address" in told["message"]
        assert "registry.sock" not in told["message"]
        assert live.http.get("/health/live").status_code == 200
        assert live.tokens("known") == tokens

        registry.start()
        until(lambda: live.http.get("/health/ready").status_code == 200)
        assert live.tokens("known") == tokens


def test_names_of_a_registry_that_was_emptied_are_gone_within_seconds(
    settings: Settings, registry: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(settings) as live, open_client(registry.url) as client:
        assert live.upload("known", spectra.files(0)).status_code == 201
        before = live.tokens("known")
        file = live.http.post("/v1/files", data={"purpose": "fine-tune"}, files={"file": b"{}"})

        client.flushall()

        until(lambda: live.complete("known").status_code == 404, 5)
        assert "the registry's data were replaced" in caplog.text
        assert "overtone store show" in caplog.text
        for path in ("/v1/adapters/known", "/v1/models/known", f"/v1/files/{file.json()['id']}"):
            assert live.http.get(path).status_code == 404
        assert [m["id"] for m in live.http.get("/v1/models").json()["data"]] == ["tiny"]
        assert live.http.get("/health/ready").status_code == 200
        assert live.complete("tiny").status_code == 200
        assert live.upload("known", spectra.files(1)).status_code == 201
        assert live.tokens("known") != before
