"""The pictures that only one profile has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from loadtests.harness.page.charts import Chart
from loadtests.harness.page.scales import Scale, linear, shares
from loadtests.harness.verdict import bound, percent

Record = Mapping[str, Any]
_KINDS = {"meets": "yes", "misses": "no"}
_LEGEND = {"yes": "enough in time", "no": "not enough", "unsure": "too close to call"}


def profile_pictures(record: Record) -> dict[str, Markup]:
    """Title and drawing, of what the profile has found beyond its runs."""
    details = record["details"]
    if record["profile"] == "search" and details.get("rates"):
        return {"In time by rate, with 95 % intervals": by_rate(details)}
    if record["profile"] == "soak" and len(details.get("memory", ())) > 1:
        return {"The gateway's memory": memory(details["memory"])}
    return {}


def by_rate(details: Record) -> Markup:
    """What share of the requests was in time at each rate that was tried."""
    rates = [one for one in details["rates"] if one["attainment"] is not None]
    low = min((one["attainment"][1] for one in rates), default=0.0)
    tried = [one["rate"] for one in rates] or [1.0]
    chart = Chart("Share in time by rate", _rates(min(tried), max(tried)), shares(low), "requests/s")
    seen = []
    for one in rates:
        value, least, most = one["attainment"]
        kind = _KINDS.get(one["standing"], "unsure")
        seen.append(kind)
        said = f"{one['rate']:.1f}/s: {percent(value)} in time, {percent(least)} to {percent(most)}"
        chart.point(one["rate"], value, least, most, kind, f"{said}, {one['trials']} trials")
    for kind in dict.fromkeys(seen):
        chart.explain(_LEGEND[kind], kind)
    chart.rule(details["target"], "limit", f"wanted: {bound(details['target'])}")
    return chart.svg()


def memory(readings: Sequence[Sequence[float]]) -> Markup:
    """Resident memory over time."""
    times, megabytes = [at_s for at_s, _ in readings], [read / 1e6 for _, read in readings]
    scale = Scale(0.0, times[-1], tuple(mark for mark in linear(0.0, times[-1]).marks if mark[0] <= times[-1]))
    chart = Chart("Resident memory of the gateway over time", scale, linear(0.0, max(megabytes), unit=" MB"))
    chart.line(times, megabytes, "on", "resident memory")
    return chart.svg()


def _rates(low: float, high: float) -> Scale:
    """A logarithmic scale of rates, marked at 1, 2 and 5 of each power of ten, with some room at both ends."""
    low, high = low / 1.2, high * 1.2
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = [mantissa * 10.0**power for power in powers for mantissa in (1.0, 2.0, 5.0)]
    marks = tuple((step, f"{step:g}") for step in steps if low <= step <= high)
    return Scale(low, high, marks, log=True)
