"""Prometheus' own tool reads the configuration and runs the alerts' cases."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
[GROUP] = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
ALERTS = [rule["alert"] for rule in GROUP["rules"]]


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
def test_alert_has_a_case_in_which_it_fires(alert: str) -> None:
    cases = yaml.safe_load((DEPLOY / "alerts_test.yml").read_text())["tests"]
    checks = [check for case in cases for check in case["alert_rule_test"]]
    fired = [check["exp_alerts"] for check in checks if check["alertname"] == alert]
    assert any(fired)


def test_every_alert_is_explained() -> None:
    page = (ROOT / "docs/operations.md").read_text()
    assert set(re.findall(r"\| `(Overtone\w+)` \|", page)) == set(ALERTS)
