"""The pictures of one run, from its record."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from markupsafe import Markup

from loadtests.generator_faults import MAX_LAG_P99_S
from loadtests.harness.histogram import Histogram
from loadtests.harness.page.charts import COLOURS, Chart
from loadtests.harness.page.scales import Scale, highest, linear, milliseconds, nines, seconds_text, shares

Record = Mapping[str, Any]
_OTHERS = "others"


def run_pictures(run: Record, details: Record) -> dict[str, Markup]:
    """Title and drawing of everything worth seeing of a run; `details` are those of its profile."""
    series = run["series"]
    time = Time(series["edges_s"], details)
    drawn = {
        "Latency over time": latency(series, run, time),
        "Offered and answered, a second": rates(series, time),
        "Who answered": mix(series, time),
        "In time, and correct in time": attainment(series, time, labelled=run["score"]["accuracy"] is not None),
    }
    if series["reasons"]:
        drawn["Without an answer, a second, by reason"] = refusals(series, time)
    drawn["Latency by percentile"] = percentiles({"": Histogram.read(run["latency"])}, slos_of(run))
    drawn["The generator's lag"] = lag(series, time)
    return drawn


class Time:
    """The bins of a run's time and how they are drawn; a burst is set off."""

    def __init__(self, edges_s: Sequence[float], details: Record) -> None:
        self.edges_s = list(edges_s)
        self.middles_s = [(left + right) / 2.0 for left, right in pairwise(edges_s)]
        self.widths_s = [right - left for left, right in pairwise(edges_s)]
        self.scale = Scale(0.0, self.edges_s[-1], linear(0.0, self.edges_s[-1]).marks)
        marks = tuple(mark for mark in self.scale.marks if mark[0] <= self.edges_s[-1] * 1.001)
        self.scale = Scale(0.0, self.edges_s[-1], marks)
        self._burst = (details.get("begin_s"), details.get("end_s"))

    def chart(self, title: str, y: Scale) -> Chart:
        """An empty chart over this time."""
        chart = Chart(title, self.scale, y)
        begin_s, end_s = self._burst
        if begin_s is not None and end_s is not None:
            chart.shade(begin_s, end_s, "burst")
        return chart

    def told(self, *lines: tuple[str, Sequence[Any], str]) -> list[str]:
        """For each bin, what each (name, values, unit) is there."""
        return [
            f"{middle:.4g} s" + "".join(f"\n{name} {_told(values[place], unit)}" for name, values, unit in lines)
            for place, middle in enumerate(self.middles_s)
        ]


def latency(series: Record, run: Record, time: Time) -> Markup:
    """Percentiles as bands, on a logarithmic scale, with the SLOs as levels."""
    lines = series["latency_s"]
    slos_s = slos_of(run)
    chart = time.chart(
        "Median, 90th and 99th percentile of latency over time",
        milliseconds([value for line in lines.values() for value in line if value] + slos_s),
    )
    chart.band(time.middles_s, lines["p90"], lines["p99"], "band-far", "90th to 99th percentile")
    chart.band(time.middles_s, lines["p50"], lines["p90"], "band-near", "median to 90th")
    chart.line(time.middles_s, lines["p50"], "on", "median")
    for slo_s in slos_s[:4]:
        chart.rule(slo_s, "limit", "SLO " + ", ".join(seconds_text(slo) for slo in slos_s[:4]))
    named = [(name, values, "s") for name, values in lines.items()]
    chart.tell(time.edges_s, time.told(*named))
    return chart.svg()


def rates(series: Record, time: Time) -> Markup:
    """Requests due and answers that came, each second."""
    due = _per_s(series["due"], time)
    answered = _per_s(series["answered"], time)
    chart = time.chart("Requests due and answers a second", linear(0.0, highest([due, answered])))
    chart.stairs(time.edges_s, due, "soft", "offered, requests/s")
    chart.stairs(time.edges_s, answered, "on", "answered, answers/s")
    chart.tell(time.edges_s, time.told(("offered", due, "/s"), ("answered", answered, "/s")))
    return chart.svg()


def mix(series: Record, time: Time) -> Markup:
    """The share of each variant in the answers, stacked."""
    counts = _few(series["variants"])
    sums = [max(1, sum(column)) for column in zip(*counts.values(), strict=True)] if counts else []
    layers = {
        name: [count / total for count, total in zip(values, sums, strict=True)] for name, values in counts.items()
    }
    chart = time.chart("Share of each variant in the answers over time", shares(0.0))
    chart.stack(time.edges_s, layers)
    chart.tell(time.edges_s, time.told(*((name, values, "%") for name, values in layers.items())))
    return chart.svg()


def attainment(series: Record, time: Time, *, labelled: bool) -> Markup:
    """Shares of all requests: answered in time, and correctly in time where the rows have labels."""
    lines = {"answered in time": ("on", _shares_of(series["in_time"], series["due"]))}
    if labelled:
        lines["correct in time (effective accuracy)"] = ("second", _shares_of(series["good"], series["due"]))
    low = min((value for _, line in lines.values() for value in line if value is not None), default=0.0)
    chart = time.chart("Share answered in time, and correctly in time", shares(low))
    for name, (kind, values) in lines.items():
        chart.line(time.middles_s, values, kind, name)
    chart.tell(
        time.edges_s, time.told(*((name.partition(" (")[0], values, "%") for name, (_, values) in lines.items()))
    )
    return chart.svg()


def refusals(series: Record, time: Time) -> Markup:
    """Requests without an answer, each second, by why."""
    layers = {name: _per_s(values, time) for name, values in series["reasons"].items()}
    most = max(sum(column) for column in zip(*layers.values(), strict=True))
    chart = time.chart("Requests without an answer a second, by reason", linear(0.0, most))
    chart.stack(time.edges_s, layers, first=3)
    chart.tell(time.edges_s, time.told(*((name, values, "/s") for name, values in layers.items())))
    return chart.svg()


def lag(series: Record, time: Time) -> Markup:
    """How late requests left, at the 99th percentile, against what is allowed."""
    values = series["lag_s"]
    chart = time.chart(
        "99th percentile of the generator's lag over time",
        milliseconds([*(value for value in values if value), MAX_LAG_P99_S]),
    )
    chart.line(time.middles_s, values, "on", "99th percentile of a moment")
    chart.rule(MAX_LAG_P99_S, "limit", "what is allowed over all")
    chart.tell(time.edges_s, time.told(("lag", values, "s")))
    return chart.svg()


def percentiles(named: Mapping[str, Histogram], slos_s: Sequence[float]) -> Markup:
    """Latency by percentile, each nine as wide as the one before."""
    total = max((histogram.total for histogram in named.values()), default=0)
    least = max(1e-5, min(0.01, 1.0 / max(total, 1)))
    rests = np.geomspace(0.5, least, 60).tolist()
    lines = {name: [histogram.quantile_s(1.0 - rest) for rest in rests] for name, histogram in named.items()}
    chart = Chart(
        "Latency by percentile",
        nines(least),
        milliseconds([value for line in lines.values() for value in line] + list(slos_s)),
        "percentile",
    )
    kinds = ("on", "second") if len(named) > 1 else ("on",)
    for kind, (name, line) in zip(kinds, lines.items(), strict=False):
        chart.line(rests, [value if math.isfinite(value) else None for value in line], kind, name)
    for slo_s in slos_s[:4]:
        chart.rule(slo_s, "limit", "SLO " + ", ".join(seconds_text(slo) for slo in slos_s[:4]))
    return chart.svg()


def slos_of(run: Record) -> list[float]:
    """The SLOs of a run, in seconds."""
    return [slo["slo_s"] for slo in run["score"]["by_slo"]]


def _few(counts: Record) -> dict[str, list[int]]:
    """As they are, or where there are more names than colours, the most frequent and the sum of the others."""
    if len(counts) <= COLOURS:
        return dict(counts)
    by_size = sorted(counts, key=lambda name: -sum(counts[name]))
    kept = set(by_size[: COLOURS - 1])
    rest = [sum(column) for column in zip(*(counts[name] for name in counts if name not in kept), strict=True)]
    return {**{name: values for name, values in counts.items() if name in kept}, _OTHERS: rest}


def _per_s(counts: Sequence[int], time: Time) -> list[float]:
    return [count / width for count, width in zip(counts, time.widths_s, strict=True)]


def _shares_of(counts: Sequence[int], all_of: Sequence[int]) -> list[float | None]:
    return [count / whole if whole else None for count, whole in zip(counts, all_of, strict=True)]


def _told(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit == "s":
        return seconds_text(value)
    return f"{value * 100.0:.1f} %" if unit == "%" else f"{value:.4g}{unit}"
