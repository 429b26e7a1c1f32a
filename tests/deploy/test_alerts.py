"""Prometheus' own tool reads the configuration and runs the alerts' cases."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from .test_dashboard import PANELS
from .traffic import Traffic, built

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
[GROUP] = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
ALERTS = [rule["alert"] for rule in GROUP["rules"]]
_, *_PARTS = re.split(r"^## (\w+)$", (ROOT / "docs/runbooks.md").read_text(), flags=re.MULTILINE)
#: Alert -> its section of the runbooks.
SECTIONS = dict(zip(_PARTS[::2], _PARTS[1::2], strict=True))


def promtool(*arguments: str, folder: Path = DEPLOY) -> str:
    """Return what the tool says in a folder; its failure fails the test."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("needs promtool of Debian's prometheus")
    done = subprocess.run(
        [program, *arguments], cwd=folder, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.prometheus
def test_configuration_is_valid(tmp_path: Path) -> None:
    """The key's file is Compose's; the tool looks for it."""
    (tmp_path / "metrics-key").write_text("none")
    shutil.copy(DEPLOY / "alerts.yml", tmp_path)
    text = (DEPLOY / "prometheus.yml").read_text()
    assert text.count("/run/secrets/metrics-key") == 1
    (tmp_path / "prometheus.yml").write_text(text.replace("/run/secrets/", f"{tmp_path}/"))
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml", folder=tmp_path)


@pytest.mark.prometheus
def test_rules_are_valid() -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", "alerts.yml")


@pytest.mark.prometheus
def test_alerts_fire_when_they_should_and_only_then() -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yml")


@pytest.mark.parametrize("alert", ALERTS)
def test_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(alert: str) -> None:
    cases = yaml.safe_load((DEPLOY / "alerts_test.yml").read_text())["tests"]
    checks = [check for case in cases for check in case["alert_rule_test"]]
    fired = [bool(check["exp_alerts"]) for check in checks if check["alertname"] == alert]
    quiet = len(series_of(cases, alert)) > 1 or not all(fired)
    assert any(fired)
    assert quiet


def series_of(cases: list[dict[str, Any]], alert: str) -> set[str]:
    """Return the servers of the cases in which an alert fires: those beside it stay silent."""
    found = [c for c in cases if any(x["alertname"] == alert for x in c["alert_rule_test"])]
    series = [each["series"] for case in found for each in case["input_series"]]
    return {server for each in series for server in re.findall(r'instance="(\w+):', each)}


@pytest.mark.parametrize("rule", GROUP["rules"], ids=ALERTS)
def test_alert_leads_to_a_section_that_says_what_to_do(rule: dict[str, Any]) -> None:
    alert, annotations = rule["alert"], rule["annotations"]
    assert annotations["runbook_url"] == f"docs/runbooks.md#{alert.lower()}"
    section = SECTIONS[alert]
    parts = [section.index(f"- **{part}**") for part in ("Callers", "Look", "Do")]
    assert parts == sorted(parts)
    assert {"summary", "description"} < set(annotations)
    assert rule["labels"]["severity"] in ("critical", "warning")


def test_there_is_no_section_without_an_alert() -> None:
    assert list(SECTIONS) == ALERTS


def test_metrics_of_the_runbooks_exist() -> None:
    metrics = built()
    Traffic(metrics)()
    families = list(text_string_to_metric_families(metrics.render()[0].decode()))
    known = {family.name + end for family in families for end in ("", "_total")}
    asked = set(re.findall(r"\bovertone_\w+", "".join(SECTIONS.values())))
    assert len(asked) >= 4
    assert asked <= known


def test_panels_of_the_runbooks_are_in_a_dashboard() -> None:
    named = re.findall(
        r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", " ".join("".join(SECTIONS.values()).split())
    )
    assert len(named) > 10
    assert set(named) <= {panel["title"] for panel in PANELS}
