"""The runs of a study, summed up: one row a contender."""

import statistics
from collections.abc import Sequence
from typing import Any

from bench.studies.runs import Study


def summed_up(study: Study, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row a contender: the mean and the range of its seeds.

    Where all of them diverged, the row has no figures and 0 seeds.
    """
    table = []
    for contender in study.contenders:
        every = [row for row in rows if row["what"] == contender.what]
        own = [row for row in every if not row.get("diverged")]
        if every and not own:
            table.append({"what": contender.what, "diverged": len(every), "seeds": 0})
        if not own:
            continue
        values = [row["after"][study.metric] for row in own]
        found = {
            "what": contender.what,
            "coefficients": own[0]["coefficients"],
            "bytes": own[0]["bytes"],
            study.metric: statistics.mean(values),
            "least": min(values),
            "most": max(values),
            "before": own[0]["before"][study.metric],
            "cpu_s": statistics.median(row["cpu_s"] for row in own),
            "peak_mib": statistics.median(row["peak_mib"] for row in own),
            "seeds": len(own),
        }
        table.append(found | _more_of(study, own))
    return table


def _more_of(study: Study, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return mean, least and most of the study's further figures, where the rows have them."""
    found = dict[str, Any]()
    for name in study.more:
        values = [row["after"][name] for row in rows if name in row["after"]]
        if values:
            found[name] = statistics.mean(values)
            found |= {f"{name}_least": min(values), f"{name}_most": max(values)}
    return found
