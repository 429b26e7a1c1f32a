"""What starts find out is kept, checked when it is read, and found out again where it must be."""

import errno
import json
import logging
import shutil
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from adapters_core.contract.layer import Shape
from adapters_core.layers.canary import CanaryReport
from server.base.findings import Findings
from server.base.phases import Phases

KEY = ("a processor", "torch 2", "sha256:base")
REPORT = TypeAdapter(CanaryReport)
FOUND = CanaryReport(7, (("fourierft", Shape(64, 32)),))


class Finder:
    """Counts how often it had to look."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0

    def found(self, *key: str, depends: str = "", holds: bool = True) -> CanaryReport:
        findings = Findings(self.folder, key or KEY, Phases())
        return findings.found(
            "canary", REPORT, self._look, depends=depends, holds=lambda found: holds
        )

    def _look(self) -> CanaryReport:
        self.count += 1
        return FOUND


@pytest.fixture
def finder(tmp_path: Path) -> Finder:
    return Finder(tmp_path / "starts")


def test_the_next_start_takes_what_was_found(
    finder: Finder, caplog: pytest.LogCaptureFixture
) -> None:
    assert [finder.found() for _ in range(3)] == [FOUND] * 3
    assert finder.count == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("changed", range(len(KEY)))
def test_another_machine_version_or_base_finds_out_for_itself(finder: Finder, changed: int) -> None:
    finder.found()
    finder.found(*(f"{part}!" if i == changed else part for i, part in enumerate(KEY)))
    assert finder.count == 2
    finder.found()  # and leaves the first one's alone
    assert finder.count == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("7", "8"),
        lambda text: "[]",
        lambda text: '{"found": {}, "sha256": 3}',
        lambda text: "\0" * len(text),
        lambda text: "",
        lambda text: json.dumps(json.loads(text) | {"found": {"canary": {"depends": ""}}}),
    ],
)
def test_a_damaged_file_is_found_out_again_and_written_anew(
    finder: Finder, damage, caplog: pytest.LogCaptureFixture
) -> None:
    finder.found()
    (file,) = finder.folder.iterdir()
    file.write_text(damage(file.read_text()))
    assert finder.found() == FOUND
    assert finder.count == 2
    assert "is damaged" in caplog.text
    finder.found()
    assert finder.count == 2


def test_a_file_of_another_key_is_not_taken_for_this_ones(
    finder: Finder, caplog: pytest.LogCaptureFixture
) -> None:
    finder.found("another machine")
    (other,) = finder.folder.iterdir()
    finder.found()
    (own,) = (file for file in finder.folder.iterdir() if file != other)
    shutil.copy(other, own)
    assert finder.found() == FOUND
    assert finder.count == 3
    assert f"{own} is damaged" in caplog.text


def test_another_setting_finds_out_for_itself_and_is_kept_instead(finder: Finder) -> None:
    for depends, count in (("", 1), ("", 1), ("deterministic", 2), ("deterministic", 2), ("", 3)):
        finder.found(depends=depends)
        assert finder.count == count


def test_what_no_longer_holds_makes_all_be_found_out_again(
    finder: Finder, caplog: pytest.LogCaptureFixture
) -> None:
    def speed() -> str:
        return Findings(finder.folder, KEY, Phases()).found(
            "speed", TypeAdapter(str), lambda: "fast" if finder.count == 1 else "slow"
        )

    finder.found()
    assert speed() == "fast"
    assert finder.found(holds=False) == FOUND
    assert finder.count == 2
    assert "no longer holds" in caplog.text
    assert speed() == "slow"


def test_a_write_that_is_cut_short_leaves_what_was_there(
    finder: Finder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(path: Path, text: str) -> int:
        path.write_bytes(text[: len(text) // 2].encode())
        raise OSError(errno.ENOSPC, "No space left on device")

    finder.found()
    (file,) = finder.folder.iterdir()
    before = file.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", cut)
        finder.found(depends="another")
    assert [*finder.folder.iterdir()] == [file]
    assert file.read_bytes() == before


def test_a_finding_of_another_form_is_found_out_again(finder: Finder) -> None:
    Findings(finder.folder, KEY, Phases()).found("canary", TypeAdapter(str), lambda: "fine")
    assert finder.found() == FOUND
    assert finder.count == 1


def test_a_failure_is_not_kept(finder: Finder) -> None:
    def fail() -> CanaryReport:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        Findings(finder.folder, KEY, Phases()).found("canary", REPORT, fail)
    finder.found()
    assert finder.count == 1


def test_a_folder_that_cannot_be_written_costs_time_alone(
    finder: Finder, caplog: pytest.LogCaptureFixture
) -> None:
    finder.folder.write_text("a file is here")
    assert [finder.found(), finder.found()] == [FOUND] * 2
    assert finder.count == 2
    assert "cannot be written" in caplog.text


def test_files_of_many_keys_do_not_heap_up(finder: Finder) -> None:
    for number in range(40):
        finder.found(str(number))
    assert len(list(finder.folder.iterdir())) == 16
    assert finder.count == 40
    finder.found("39")
    assert finder.count == 40
