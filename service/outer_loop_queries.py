"""What the outer loop asks of Prometheus, as one expression, and how its answer becomes readings.

One expression, so that all numbers are of one moment and a reading is one request. Each part has a label `signal` of
its own. Raw metrics, not recorded series: it works with any Prometheus that scrapes the gateway, without our rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

from router.outer_loop import FamilyReading, Readings, valid_share
from service.prometheus import ReadingError, Result, Vector

LEAST_REQUESTS = 20
"""In the short window; a share of fewer says nothing, and the family is one of which nothing is known."""
PRESSURES = ("cpu", "gpu")


class Windows(NamedTuple):
    """Over how many seconds shares are taken: whether it still goes on, and whether it matters."""

    short_s: int
    long_s: int


class Answer(NamedTuple):
    """What an answer says: readings, each source's pressure, and by signal how many values could not be believed."""

    readings: Readings
    pressures: dict[str, float]
    rejected: Counter[str]


def expression(windows: Windows, match: str, host: str) -> str:
    """The PromQL of one reading. `match` has label matchers of the fleet's own series, `host` the name of this machine.

    Missed are requests with an SLO that were refused, late or failed. Pressure is the share of time that something on
    the host waits for a processor (node_exporter), and how busy its GPUs are (dcgm-exporter).
    """
    short, long = f"[{windows.short_s}s]", f"[{windows.long_s}s]"
    braces = f"{{{match}}}"
    name = host.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")

    def per_model(metric: str, window: str) -> str:
        return f"sum by (model) (rate({metric}{braces}{window}))"

    def missed(window: str) -> str:
        judged, met = per_model("pareto_slo_judged_total", window), per_model("pareto_slo_met_total", window)
        # Where nothing was met there is no such series.
        return f"clamp_min(1 - ({met} or 0 * {judged}) / ({judged} > 0), 0)"

    enough = f"sum by (model) (increase(pareto_slo_judged_total{braces}{short})) >= {LEAST_REQUESTS}"
    quality = f"pareto_variant_quality_ratio{braces}"
    best, worst = f"max by (model) ({quality})", f"min by (model) ({quality})"
    answered = per_model("pareto_request_latency_seconds_count", short)
    served = f"{per_model('pareto_served_quality_sum_total', short)} / ({answered} > 0)"
    # Aggregated on both sides: two exporters of one instance would otherwise spoil the whole expression.
    waiting = f"max by (instance) (rate(node_pressure_cpu_waiting_seconds_total{short}))"
    here = f'max by (instance) (node_uname_info{{nodename="{name}"}})'
    parts = {
        "short": f"{missed(short)} and on (model) {enough}",
        "long": missed(long),
        "downgraded": f"clamp(({best} - {served}) / ({best} - {worst} > 0), 0, 1)",
        "cpu": f"clamp_max(max({waiting} * on (instance) {here}), 1)",
        "gpu": f'max(avg_over_time(DCGM_FI_DEV_GPU_UTIL{{Hostname="{name}"}}{short})) / 100',
        "age": f"time() - max(timestamp(pareto_slo_target_ratio{braces}))",
    }
    return " or ".join(f'label_replace({part}, "signal", "{signal}", "", "")' for signal, part in parts.items())


def answer_of(vector: Vector, families: Collection[str], max_age_s: float) -> Answer:
    """What an answer says of the families that are served here; what is of others is passed over.

    Values that cannot be what they are called are rejected, one by one. Raises `ReadingError` where the server's
    numbers are older than `max_age_s`, or it has none of this fleet.
    """
    age_s: float | None = None
    known: dict[str, dict[str, float]] = {}
    pressures: dict[str, float] = {}
    rejected: Counter[str] = Counter()
    for labels, value in vector.samples:
        signal, family = labels.get("signal"), labels.get("model")
        if signal == "age":
            age_s = value
        elif signal in PRESSURES or (signal in FamilyReading._fields and family in families):
            if not valid_share(value):
                rejected[signal] += 1
            elif signal in PRESSURES:
                pressures[signal] = value
            else:
                assert family is not None, "it is one of the families"
                known.setdefault(family, {})[signal] = value
    if age_s is None:
        raise ReadingError(Result.STALE, "it knows no pareto_slo_target_ratio: does it scrape this gateway?")
    if not 0.0 <= age_s <= max_age_s:
        raise ReadingError(Result.STALE, f"its numbers are {age_s:.0f} s old, at most {max_age_s:.0f} s are allowed")
    readings = Readings(
        {family: FamilyReading(**shares) for family, shares in known.items()}, max(pressures.values(), default=None)
    )
    return Answer(readings, pressures, rejected)
