"""Two load tests held against each other: measure by measure, with how sure each difference is. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests.harness.histogram import Histogram, quantile_of
from loadtests.harness.uncertainty import Interval, Measure, difference, less_sure
from loadtests.workload import SloMix

Record = Mapping[str, Any]
PERCENTILES = (0.5, 0.9, 0.99, 0.999)


@dataclass(frozen=True, slots=True)
class Row:
    """One measure of both: `first`, `second`, and by how much the second has more.

    `unit` is `share`, `seconds` or `rate` (requests a second). `more_is_better` is None where neither is.
    """

    name: str
    unit: str
    first: float
    second: float
    more: Interval
    more_is_better: bool | None

    @property
    def verdict(self) -> str:
        """`better` or `worse` where the second surely is, `different` where neither is better, else `same`."""
        if math.isnan(self.more.low) or math.isnan(self.more.high) or self.more.low <= 0 <= self.more.high:
            return "same"
        if self.more_is_better is None:
            return "different"
        return "better" if (self.more.low > 0) is self.more_is_better else "worse"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Measures, what else differs (name, first, second), and whether both sent the very same requests."""

    rows: tuple[Row, ...]
    differences: tuple[tuple[str, str, str], ...]
    paired: bool


def compare(first: Record, second: Record, runs: tuple[Record, Record]) -> Comparison:
    """Compare one run of each of two records."""
    alike = runs[0]["rate_asked"] == runs[1]["rate_asked"]
    paired = runs[0]["workload"] == runs[1]["workload"] and len(runs[0]["blocks"]) == len(runs[1]["blocks"])
    labelled = all(run["score"]["accuracy"] is not None for run in runs)
    rows = [
        _row("answered in time", "share", _share("in_time", "requests"), runs, paired, more_is_better=True),
        _row("answered", "share", _share("answered", "requests"), runs, paired, more_is_better=True),
    ]
    if labelled:
        right = _row("correct in time", "share", _share("good", "requests"), runs, paired, more_is_better=True)
        rows.insert(1, _as_sure_as_rows(right, runs, paired))
    for share in PERCENTILES:
        name = f"latency, {share * 100:g}th percentile" if share != 0.5 else "latency, median"
        rows.append(_row(name, "seconds", _quantile(share), runs, paired, more_is_better=False))
    if not alike:
        # Who has found a higher rate is slower at it: that is no worse.
        rows = [replace(row, more_is_better=None) for row in rows]
    if first["profile"] == second["profile"] == "search":
        rows.insert(0, _found_row(first["details"], second["details"]))
    return Comparison(tuple(rows), tuple(_differences(first, second, runs)), paired)


def _found_row(first: Record, second: Record) -> Row:
    """The rates that two searches have found: the difference lies between what their sure bounds leave open."""
    rates = [math.nan if found["rate"] is None else float(found["rate"]) for found in (first, second)]
    lows = [0.0 if found["sure_low"] is None else found["sure_low"] for found in (first, second)]
    highs = [math.inf if found["sure_high"] is None else found["sure_high"] for found in (first, second)]
    more = Interval(rates[1] - rates[0], lows[1] - highs[0], highs[1] - lows[0])
    return Row("highest rate with enough in time", "rate", rates[0], rates[1], more, more_is_better=True)


def _row(
    name: str,
    unit: str,
    measure: Callable[[Sequence[Record]], Measure],
    runs: tuple[Record, Record],
    paired: bool,
    *,
    more_is_better: bool | None,
) -> Row:
    blocks = tuple(run["blocks"] for run in runs)
    one, other = (measure(own) for own in blocks)
    counts = (len(blocks[0]), len(blocks[1]))
    values = tuple(found(np.ones(count, np.int64)) for found, count in zip((one, other), counts, strict=True))
    more = difference(one, other, counts, paired=paired)
    return Row(name, unit, values[0], values[1], more, more_is_better)


def _as_sure_as_rows(right: Row, runs: tuple[Record, Record], paired: bool) -> Row:
    """A row is answered alike each time: what differs by rows is no surer than they are many.

    Records of former versions do not have them.
    """
    if not all("rows" in run for run in runs):
        return right
    one, other = (_ratio(run["rows"]["good"], run["rows"]["requests"]) for run in runs)
    counts = (len(runs[0]["rows"]["good"]), len(runs[1]["rows"]["good"]))
    return replace(right, more=less_sure(right.more, difference(one, other, counts, paired=paired)))


def _share(hit: str, of: str) -> Callable[[Sequence[Record]], Measure]:
    return lambda blocks: _ratio([block[hit] for block in blocks], [block[of] for block in blocks])


def _ratio(hits: Sequence[int], counts: Sequence[int]) -> Measure:
    hit, count = np.array(hits, np.float64), np.array(counts, np.float64)

    def share(times: NDArray[np.int64]) -> float:
        total = float(times @ count)
        return float(times @ hit) / total if total else math.nan

    return share


def _quantile(share: float) -> Callable[[Sequence[Record]], Measure]:
    return lambda blocks: quantile_of([Histogram.read(block["latency"]) for block in blocks], share)


_ASKED: Mapping[str, str] = {"thresholds": "wanted", "profile's options": "own"}
_SENT_BY: Mapping[str, str] = {
    "generator's machine": "machine",
    "generator's cores": "cores",
    "generator pinned to cores": "pinned_to",
    "generator's system": "system",
    "generator's Python": "python",
    "generator's locust": "locust",
    "generator's commit": "commit",
    "workers": "workers",
}


def _differences(first: Record, second: Record, runs: tuple[Record, Record]) -> list[tuple[str, str, str]]:
    """What a reader should know of before believing that the gateways differ, or do not."""
    pairs = [
        ("gateway", _gateway(first), _gateway(second)),
        ("profile", first["profile"], second["profile"]),
        ("load", runs[0]["score"]["description"], runs[1]["score"]["description"]),
        ("rate asked", str(runs[0]["rate_asked"]), str(runs[1]["rate_asked"])),
        ("seed", str(runs[0]["seed"]), str(runs[1]["seed"])),
        ("families", _families(first), _families(second)),
        ("tenants", _named(first.get("tenants")), _named(second.get("tenants"))),
        *((name, _named(first["options"].get(of)), _named(second["options"].get(of))) for name, of in _ASKED.items()),
        *((name, str(first["generator"].get(of)), str(second["generator"].get(of))) for name, of in _SENT_BY.items()),
    ]
    return [pair for pair in pairs if pair[1] != pair[2]]


def _named(values: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{name} {value}" for name, value in (values or {}).items() if value is not None) or "none"


def _gateway(record: Record) -> str:
    gateway = record["gateway"]
    return " ".join(str(gateway[name]) for name in ("url", "name", "version", "commit") if gateway.get(name))


def _families(record: Record) -> str:
    return "; ".join(
        f"{family['name']} {family['revision'] or ''} ({family['rows']}; "
        f"SLO {SloMix.parse(family['slo_mix_ms']).said}; {family['share']:.3g} of the requests; "
        f"variants {', '.join(family['variants'])}" + (f"; pinned to {family['pinned']})" if family["pinned"] else ")")
        for family in record["families"]
    )
