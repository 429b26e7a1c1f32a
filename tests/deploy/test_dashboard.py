"""The dashboards: laid out neatly, and every query of them answered by a real Prometheus."""

import itertools
import json
import math
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from .traffic import Traffic, built, served

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARDS = {
    path.stem: json.loads(path.read_text())
    for path in sorted((DEPLOY / "grafana/dashboards").glob("*.json"))
}


def panels_of(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries_of(dashboard: dict[str, Any]) -> list[tuple[str, str]]:
    panels = panels_of(dashboard)
    return [(panel["title"], target["expr"]) for panel in panels for target in panel["targets"]]


PANELS = [panel for dashboard in DASHBOARDS.values() for panel in panels_of(dashboard)]
QUERIES = [query for dashboard in DASHBOARDS.values() for query in queries_of(dashboard)]
METRIC = r"\b(?:overtone_|vllm:)\w+"
#: Filled from the registry: without one they have no samples.
OF_REGISTRY = {title for title, _ in queries_of(DASHBOARDS["training"])} - {
    "Sequences of batches",
    "Requests of batches",
}
every_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=list(DASHBOARDS))
RATE_WINDOW = "3s"
ANSWER_TIMEOUT_S = 20.0
POLL_S = 0.1


def is_answered(values: list[float]) -> bool:
    return bool(values) and all(math.isfinite(value) for value in values)


def unanswered(
    prometheus: Any, instance: str, drive: Callable[[], None], left: list[tuple[str, str]] = QUERIES
) -> list[tuple[str, str]]:
    """Return the queries that had no finite, non-empty answer while `drive` made traffic.

    Args:
        prometheus: as given by `scraped`.
        instance: host and port of the server.
        drive: called again and again; makes a bit of traffic of every kind.
        left: titles and queries.
    """
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    while left and time.monotonic() < deadline:
        drive()
        left = [
            (title, query)
            for title, query in left
            if not is_answered(prometheus.query(filled_in(query, instance)))
        ]
        time.sleep(POLL_S)
    return left


def filled_in(query: str, instance: str) -> str:
    """Return the query with Grafana's variables replaced; an unknown one fails the test."""
    exact = re.escape(instance).replace("\\", "\\\\")  # in a quoted string of the query language
    values = {"$__rate_interval": RATE_WINDOW, "$instance": exact, "$adapter": ".*", "$op": ".*"}
    text = query
    for name, value in values.items():
        text = text.replace(name, value)
    assert "$" not in text, f"a variable that nobody fills in: {query}"
    return text


@pytest.mark.prometheus
def test_every_panel_shows_numbers(scraped: Callable[[str], Any]) -> None:
    metrics = built()
    traffic = Traffic(metrics)
    traffic()
    with served(metrics) as url:
        prometheus = scraped(url)
        instances = prometheus.get(
            "/api/v1/label/instance/values", **{"match[]": "overtone_build_info"}
        )
        assert instances == [url.removeprefix("http://")]  # what the variable offers
        queries = [query for query in QUERIES if query[0] not in OF_REGISTRY]
        assert unanswered(prometheus, instances[0], traffic, queries) == []
        assert_rules_work(prometheus)


def assert_rules_work(prometheus: Any) -> None:
    """Each alert of the shipped file is loaded and evaluates without an error."""
    rules = [r for group in prometheus.get("/api/v1/rules")["groups"] for r in group["rules"]]
    [group] = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    assert [rule["name"] for rule in rules] == [rule["alert"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}


def test_every_metric_that_is_asked_for_exists() -> None:
    metrics = built()
    Traffic(metrics)()
    text = metrics.render()[0].decode()
    families = list(text_string_to_metric_families(text))
    known = {s.name for family in families for s in family.samples}
    # Those of jobs have samples with a registry only.
    known |= {family.name + end for family in families for end in ("", "_total")}
    asked = " ".join(query for _, query in QUERIES) + (DEPLOY / "alerts.yml").read_text()
    assert set(re.findall(METRIC, asked)) <= known


@every_dashboard
def test_variables_are_those_that_queries_use(dashboard: dict[str, Any]) -> None:
    queries = queries_of(dashboard)
    used = {name for _, query in queries for name in re.findall(r"\$(\w+)", query)}
    defined = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert used - {"__rate_interval"} == defined


@every_dashboard
def test_dashboards_lead_to_each_other(dashboard: dict[str, Any]) -> None:
    [link] = dashboard["links"]
    assert link["type"] == "dashboards"
    assert link["includeVars"]
    assert link["keepTime"]
    assert all(set(link["tags"]) <= set(other["tags"]) for other in DASHBOARDS.values())


def test_every_dashboard_has_a_name_of_its_own() -> None:
    assert set(DASHBOARDS) == {"serving", "adapters", "training", "registry"}
    for key in ("uid", "title"):
        assert len({dashboard[key] for dashboard in DASHBOARDS.values()}) == len(DASHBOARDS)


@every_dashboard
def test_single_numbers_have_thresholds(dashboard: dict[str, Any]) -> None:
    singles = [panel for panel in panels_of(dashboard) if panel["type"] == "stat"]
    assert all(panel["fieldConfig"]["defaults"]["thresholds"]["steps"] for panel in singles)
    steps = [len(panel["fieldConfig"]["defaults"]["thresholds"]["steps"]) for panel in singles]
    assert max(steps) > 1  # some value is worth a look


def test_every_query_is_limited_to_the_chosen_servers() -> None:
    for title, query in QUERIES:
        selectors = re.findall(METRIC + r"(\{[^}]*\})?", query)
        assert all('instance=~"$instance"' in selector for selector in selectors), title


def test_data_source_is_the_provisioned_one() -> None:
    [source] = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )["datasources"]
    targets = [target for panel in PANELS for target in panel["targets"]]
    variables = [v for board in DASHBOARDS.values() for v in board["templating"]["list"]]
    assert {x["datasource"]["uid"] for x in [*PANELS, *targets, *variables]} == {source["uid"]}


def test_rate_interval_follows_the_scrape_interval() -> None:
    [source] = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )["datasources"]
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]


@pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])
def test_panel_explains_itself(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith((".", '"other".'))
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert all(target["legendFormat"] for target in panel["targets"])
    legends = [target["legendFormat"] for target in panel["targets"]]
    assert len(set(legends)) == len(legends)


@every_dashboard
def test_titles_and_ids_are_unique(dashboard: dict[str, Any]) -> None:
    for key in ("id", "title"):
        values = [panel[key] for panel in dashboard["panels"]]
        assert len(set(values)) == len(values)


def cells(panel: dict[str, Any]) -> Iterator[tuple[int, int]]:
    place = panel["gridPos"]
    columns = range(place["x"], place["x"] + place["w"])
    return itertools.product(columns, range(place["y"], place["y"] + place["h"]))


@every_dashboard
def test_panels_fill_the_grid_without_gap_or_overlap(dashboard: dict[str, Any]) -> None:
    taken = [cell for panel in dashboard["panels"] for cell in cells(panel)]
    height = max(y for _, y in taken) + 1
    assert sorted(taken) == sorted(itertools.product(range(24), range(height)))
