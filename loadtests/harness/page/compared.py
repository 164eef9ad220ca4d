"""Two load tests on one page, made from their records."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from loadtests.harness.comparison import Comparison, Row, compare
from loadtests.harness.histogram import Histogram
from loadtests.harness.page.charts import Chart
from loadtests.harness.page.page import shown_run, templates, title_of
from loadtests.harness.page.pictures import percentiles, slos_of
from loadtests.harness.page.scales import Scale, linear, milliseconds, shares
from loadtests.harness.verdict import percent

TEMPLATE = "compared.html.jinja"
Record = Mapping[str, Any]
_KINDS = ("on", "second")
_NAMES = ("A", "B")


_WORDS: Mapping[str, tuple[Callable[[float], str], Callable[[float], str]]] = {
    "seconds": (lambda s: f"{s * 1e3:.2f} ms", lambda s: f"{s * 1e3:+.2f} ms"),
    "share": (percent, lambda share: f"{share * 100:+.2f} points"),
    "rate": (lambda rate: f"{rate:.1f}/s", lambda rate: f"{rate:+.1f}/s"),
}
"""Of each unit: a value, and a difference."""


def render_comparison(records: tuple[Record, Record], names: tuple[str, str]) -> tuple[str, Comparison]:
    """Return the page, and what it says in numbers. `names` are what the records are called."""
    runs = (shown_run(records[0]), shown_run(records[1]))
    found = compare(*records, runs)
    page = (
        templates()
        .get_template(TEMPLATE)
        .render(
            records=records,
            names=names,
            titles=[title_of(record) for record in records],
            rows=[said(row) for row in found.rows],
            paired=found.paired,
            differences=found.differences,
            pictures=_pictures(runs),
        )
    )
    return page, found


def said(row: Row) -> dict[str, str]:
    """A measure in words: both values, the difference and its interval, and the verdict."""
    value, more = _WORDS[row.unit]
    known = math.isfinite(row.more.low) and math.isfinite(row.more.high)
    unknown = "a bound is not known" if row.unit == "rate" else "too few requests to tell"
    return {
        "name": row.name,
        "first": value(row.first) if math.isfinite(row.first) else "-",
        "second": value(row.second) if math.isfinite(row.second) else "-",
        "more": more(row.more.value) if math.isfinite(row.more.value) else "-",
        "interval": f"{more(row.more.low)} to {more(row.more.high)}" if known else unknown,
        "verdict": row.verdict,
    }


def _pictures(runs: Sequence[Record]) -> dict[str, Markup]:
    histograms = {name: Histogram.read(run["latency"]) for name, run in zip(_NAMES, runs, strict=True)}
    slos_s = sorted({slo for run in runs for slo in slos_of(run)})
    drawn = {
        "Latency by percentile": percentiles(histograms, slos_s),
        "99th percentile over time": _over_time(runs, lambda series: series["latency_s"]["p99"], milliseconds),
        "Answered in time": _over_time(runs, lambda series: _ratio(series, "in_time"), lambda v: shares(min(v))),
    }
    if all(run["score"]["accuracy"] is not None for run in runs):
        right = _over_time(runs, lambda series: _ratio(series, "good"), lambda v: shares(min(v)))
        drawn["Correct in time"] = right
    return drawn | {"Who answered: A above, B below": _mixes(runs)}


def _over_time(
    runs: Sequence[Record],
    line_of: Callable[[Record], list[float | None]],
    scale_of: Callable[[list[float]], Scale],
) -> Markup:
    lines = [line_of(run["series"]) for run in runs]
    known = [value for line in lines for value in line if value is not None] or [0.0]
    longest_s = max(run["series"]["edges_s"][-1] for run in runs)
    marks = tuple(mark for mark in linear(0.0, longest_s).marks if mark[0] <= longest_s * 1.001)
    chart = Chart("Both over time", Scale(0.0, longest_s, marks), scale_of(known))
    for name, kind, run, line in zip(_NAMES, _KINDS, runs, lines, strict=True):
        middles_s = [(left + right) / 2.0 for left, right in pairwise(run["series"]["edges_s"])]
        chart.line(middles_s, line, kind, name)
    return chart.svg()


def _mixes(runs: Sequence[Record]) -> Markup:
    """Two bars, each cut into the shares of the variants."""
    names = list(dict.fromkeys(name for run in runs for name in run["series"]["variants"]))
    bars = Scale(0.0, 2.0, ((0.5, "B"), (1.5, "A")))
    across = Scale(0.0, 1.0, shares(0.0).marks)
    chart = Chart("Share of each variant in the answers, A above, B below", across, bars, "of the answers")
    for level, run in zip((1.0, 0.0), runs, strict=True):
        counts = {name: sum(run["series"]["variants"].get(name, ())) for name in names}
        total, left = max(1, sum(counts.values())), 0.0
        for place, name in enumerate(names):
            right = left + counts[name] / total
            if right > left:
                low, high = [level + 0.15] * 2, [level + 0.85] * 2
                chart.band([left, right], low, high, f"c{place % 10}", name)
            left = right
    return chart.svg()


def _ratio(series: Record, name: str) -> list[float | None]:
    return [count / due if due else None for count, due in zip(series[name], series["due"], strict=True)]
