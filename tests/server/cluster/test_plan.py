"""What a plan may say, and that the shipped one is such a plan."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from server.cluster.plan import Plan

SHIPPED = Path(__file__).parents[3] / "deploy" / "ray" / "overtone.yaml"


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BASE_NAME", "REGISTRY", "BASE"):
        monkeypatch.delenv(f"OVERTONE_{name}", raising=False)


def base(name: str = "demo", **changes: Any) -> dict[str, Any]:
    fixed = {"base": "/models/demo", "base_name": name, "registry": "redis://there:6379"}
    return {"settings": {**fixed, **changes.pop("settings", {})}, **changes}


def test_the_shipped_configuration_is_a_plan() -> None:
    [application] = yaml.safe_load(SHIPPED.read_text())["applications"]
    plan = Plan.model_validate(application["args"])
    [shipped] = plan.bases
    assert shipped.name == "demo"
    assert shipped.read.require_keys
    assert shipped.read.registry_url == "redis://redis.example:6379"
    assert shipped.read.data == Path("/var/lib/overtone")


def test_what_is_not_said_has_a_default() -> None:
    plan = Plan.model_validate({"bases": [base("one"), base("two", replicas={"most": 3})]})
    assert [each.name for each in plan.bases] == ["one", "two"]
    assert plan.affinity
    assert plan.bases[0].workers.number == 0
    assert plan.bases[0].replicas.most is None


def test_settings_of_the_environment_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERTONE_REGISTRY", "redis://there:6379")
    given = {"base": "/models/demo", "base_name": "demo"}
    assert Plan.model_validate({"bases": [{"settings": given}]}).bases[0].name == "demo"


@pytest.mark.parametrize(
    ("bases", "said"),
    [
        ([], "at least 1"),
        ([base(), base()], "two bases are called 'demo'"),
        ([base(settings={"base_name": None})], "base_name is missing"),
        ([base(settings={"registry": "embedded"})], "redis://HOST:PORT"),
        ([base(settings={"port": 9})], "http_options"),
        ([base(settings={"max_running": 0})], "max_running"),
        ([base(settings={"no_such": 1})], "no_such"),
        ([base(replicas={"least": 3, "most": 2})], "less than least"),
        ([base(replicas={"least": 0})], "least"),
        ([base(replica={})], "replica"),
    ],
)
def test_what_cannot_be_deployed_is_refused_by_name(bases: list[Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Plan.model_validate({"bases": bases})
