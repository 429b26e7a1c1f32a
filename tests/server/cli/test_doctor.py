"""Every answer of the doctor's has a question, and a bad one says what to do."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from adapters_core.contract import method_registry as table
from adapters_core.contract.method import Shape
from adapters_core.errors import CanaryFailed
from adapters_core.layers.canary import run_canary, usual_methods
from s3_server import S3Server
from server.cli import doctor
from server.cli.doctor import Check, Finding, examine, print_findings
from server.processor.row_check import RowReport
from server.settings import read_settings_of_machine


def test_a_check_that_breaks_is_a_bad_finding_under_its_own_question() -> None:
    def broken() -> str:
        raise OSError("no such thing")

    found = Check("some question", "do something", broken).finding()
    assert (found.question, found.is_good) == ("some question", False)
    assert (found.detail, found.advice) == ("OSError: no such thing", "do something")


def test_a_check_that_checks_nothing_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As it would if no method were registered, or the base had nothing to adapt."""
    monkeypatch.setattr(doctor, "usual_methods", list)
    found = {f.question: f for f in examine(read_settings_of_machine(data=str(tmp_path)))}
    assert not found["transforms"].is_good
    assert "no method is registered" in found["transforms"].detail
    with pytest.raises(CanaryFailed, match="no transform was checked"):
        run_canary([], [Shape(8, 8)], None)  # type: ignore[arg-type]


def test_the_doctor_checks_every_method_that_has_a_usual_one() -> None:
    assert {method.name for method in usual_methods()} == {
        name for name, kind in table.registered().items() if not kind.needs_base
    }
    assert len(usual_methods()) > 5


def test_every_row_is_a_question_with_advice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_WIDTHS", (16,))
    findings = examine(read_settings_of_machine(data=str(tmp_path), device="cuda:99"))
    assert "lambda" not in [finding.question for finding in findings]
    assert all(finding.advice for finding in findings)
    print_findings(findings, as_json=True)
    assert json.loads(capsys.readouterr().out) == [vars(finding) for finding in findings]
    print_findings(findings, as_json=False)
    shown = capsys.readouterr().out
    assert all(finding.question in shown for finding in findings)


def test_a_bucket_is_asked_and_a_missing_one_is_a_bad_finding(tmp_path: Path, s3: S3Server) -> None:
    def found(place: str) -> Finding:
        settings = read_settings_of_machine(data=str(tmp_path), store=place)
        (check,) = [each for each in doctor._checks(settings) if each.question == "store"]
        return check.finding()

    good = f"s3://{s3.bucket()}/adapters"
    assert (found(good).is_good, found(good).detail) == (True, f"{good} answers")
    bad = found("s3://bucket-none")
    assert not bad.is_good
    assert "no such bucket" in bad.detail


def test_rows_that_depend_on_their_neighbours_are_a_bad_finding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def moving(products: Callable[[], Iterable[object]], device: object) -> RowReport:
        asked.append(len(list(products())))
        return RowReport("lora on 8 x 8, a prompt", 4)

    monkeypatch.setattr(doctor, "least_multiple", moving)
    found = Check("batch invariance", "advice", lambda: doctor._rows({Shape(8, 8)})).finding()
    assert not found.is_good
    assert "lora on 8 x 8, a prompt depends on its neighbours" in found.detail
    assert asked == [1 + 2 * len(usual_methods())]
