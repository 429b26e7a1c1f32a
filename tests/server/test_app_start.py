"""What happens at a start: nothing that is stored goes, and what no record names is told of."""

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import spectra
from live import FILE, Live, running, serving, settings_of
from registry.connect import connect
from server.service import log_unknown
from server.settings import Settings
from waiting import until


def test_a_start_leaves_what_no_record_names_and_says_how_to_list_it(
    live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    assert live.upload("named", spectra.files()).status_code in (200, 201)
    record = live.service.registry.adapters.resolve("named")
    kept = live.service.registry.blobs.open(record.digest).file
    orphan = kept.parent.parent / (kept.parent.name[:2] + "f" * 62)
    shutil.copytree(kept.parent, orphan)
    old = time.time() - 30 * 86_400
    for path in (kept.parent, orphan):
        os.utime(path, (old, old))

    log_unknown(live.service)

    assert kept.exists()
    assert (orphan / FILE).exists()
    assert "1 things" in caplog.text
    assert "overtone gc --dry-run" in caplog.text
    shutil.rmtree(orphan)


@pytest.mark.parametrize("how", ["empty", "another"])
def test_a_store_with_another_registry_is_not_served_and_every_byte_stays(
    base_folder, tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(base_folder("llama"), tmp_path / "data", calibration_s=0)
    with running(settings) as live:
        until(lambda: live.http.get("/health/ready").status_code == 200)
        for i in range(3):
            assert live.upload(f"a{i}", spectra.files(i)).status_code == 201
    before = stored(tmp_path / "data" / "blobs")
    assert len(before) == 6
    shutil.rmtree(tmp_path / "data" / "registry")  # as a lost volume of Redis
    if how == "another":
        with connect("embedded", tmp_path / "data", store=tmp_path / "other") as registry:
            registry.ownership.settle()

    with running(settings) as live:
        until(lambda: "its log has the reason" in live.http.get("/health/ready").text)
    assert "Traceback" not in caplog.text
    (said,) = [each.message for each in caplog.records if "cannot serve" in each.message]
    command = f"overtone store adopt --registry embedded --data {tmp_path / 'data'}"
    assert "the store belongs to the registry" in said
    assert said.endswith(command)
    assert stored(tmp_path / "data" / "blobs") == before

    with connect("embedded", tmp_path / "data") as registry:
        registry.ownership.adopt()
    notes = tmp_path / "data" / "blobs" / "unknown.json"
    with running(settings) as live:
        until(lambda: live.http.get("/health/ready").status_code == 200)
        until(notes.exists)  # made beside the first requests
        assert len(json.loads(notes.read_text())) == 3
        assert live.upload("a0", spectra.files(0)).status_code == 201
        assert live.tokens("a0")
    assert stored(tmp_path / "data" / "blobs") == before


def stored(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all blobs, by their path, and make them old enough for any sweep."""
    old = time.time() - 30 * 86_400
    found = {}
    for path in folder.glob("[0-9a-f][0-9a-f]/*/*"):
        os.utime(path.parent, (old, old))
        found[str(path.relative_to(folder))] = path.read_bytes()
    return found


CHECKS = (
    "finding out which layers adapters may change",
    "checking the transforms",
    "checking that rows keep their bits",
    "comparing logits with transformers' own",
    "measuring rows' costs",
    "checking that steps keep their bits",
)


def test_the_second_start_uses_what_the_first_found_out(
    base_folder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "overtone")
    settings = settings_of(base_folder("llama"), tmp_path / "data", calibration_s=0.1)
    first = _started(settings, caplog)
    assert first.checks == list(CHECKS)
    second = _started(settings, caplog)
    assert not second.checks
    assert (second.said, second.tokens) == (first.said, first.tokens)
    assert len([*(tmp_path / "data" / "starts").iterdir()]) == 1


@pytest.mark.slow
def test_a_damaged_file_or_another_base_is_found_out_again(
    base_folder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "overtone")
    settings = settings_of(base_folder("llama"), tmp_path / "data", calibration_s=0.1)
    first = _started(settings, caplog)
    (file,) = (tmp_path / "data" / "starts").iterdir()
    file.write_bytes(file.read_bytes()[:-9])
    assert _started(settings, caplog).checks == first.checks
    other = settings_of(base_folder("gpt2"), tmp_path / "data", calibration_s=0.1)
    assert _started(other, caplog).checks == first.checks


@dataclass(frozen=True)
class Start:
    """A start: the checks that it made, what it says of itself, and an answer's tokens."""

    checks: list[str]
    said: dict[str, Any]
    tokens: list[int]


def _started(settings: Settings, caplog: pytest.LogCaptureFixture) -> Start:
    caplog.clear()
    with serving(settings) as live:
        begun = [each.getMessage().removeprefix("start: ") for each in caplog.records]
        said = live.http.get("/version").json()
        return Start([check for check in CHECKS if check in begun], said, live.tokens("tiny"))
