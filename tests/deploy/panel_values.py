"""What the dashboards' panels show, as the table of docs/dashboards.md."""

from collections.abc import Iterator, Mapping
from typing import Any

Series = list[tuple[Mapping[str, str], float]]
#: Of one query: the page is to show what a panel is about, not every adapter.
MAX_SERIES = 3
_SCALES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))


def shown(value: float, unit: str) -> str:
    """Return a value as Grafana shows it in a panel's unit."""
    if unit == "s":
        return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms"
    if unit == "bytes":
        scale, letter = next((s for s in _SCALES if abs(value) >= s[0]), _SCALES[-1])
        return f"{value / scale:.3g} {letter}B"
    if unit == "percentunit":
        return f"{value:.3g}" if value == 0 else f"{100 * value:.3g}%"
    if unit in ("reqps", "ops"):
        return f"{value:.3g}/s"
    number = f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:.3g}"
    return f"{number} {unit.removeprefix('suffix:')}" if unit.startswith("suffix:") else number


def cell(target: Mapping[str, Any], series: Series, unit: str) -> str:
    """Return what one query of a panel shows: some of its series by their legends."""
    parts = [
        f"{legend(target['legendFormat'], labels)} {shown(value, unit)}"
        for labels, value in sorted(series, key=lambda one: -one[1])[:MAX_SERIES]
    ]
    return ", ".join([*parts, "…"] if len(series) > MAX_SERIES else parts)


def legend(form: str, labels: Mapping[str, str]) -> str:
    """Return a legend with its labels filled in, as Grafana does."""
    for name, value in labels.items():
        form = form.replace(f"{{{{{name}}}}}", value)
    return form


def rows(dashboards: Mapping[str, Any], values: Mapping[str, Series]) -> Iterator[str]:
    """Yield the table's rows, a panel each; `values` are by query."""
    for dashboard in dashboards.values():
        kind = dashboard["title"].removeprefix("Overtone: ")
        for panel in dashboard["panels"]:
            if panel["type"] == "row":
                continue
            unit = panel["fieldConfig"]["defaults"]["unit"]
            cells = [cell(target, values[target["expr"]], unit) for target in panel["targets"]]
            yield f"| {kind} | {panel['title']} | {panel['description']} | {'; '.join(cells)} |"
