"""What the outer loop has read and what it makes of it, as metric families; absent where there is no outer loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from service.outer_loop import OuterLoopReader
from service.prometheus import Result

MODEL = ("model",)


def collect_outer_loop(reader: OuterLoopReader | None, targets: Mapping[str, float]) -> Iterator[Metric]:
    """The targets, which every gateway has, and the state of its outer loop."""
    target = GaugeMetricFamily(
        "pareto_slo_target_ratio", "Share of requests with an SLO that are to be answered in time.", labels=MODEL
    )
    for family, share in targets.items():
        target.add_metric((family,), share)
    yield target
    if reader is not None:
        yield from _attempts(reader)
        yield from _read(reader, targets)


def _attempts(reader: OuterLoopReader) -> Iterator[Metric]:
    attempts = CounterMetricFamily(
        "pareto_outer_loop_readings", "Readings of the Prometheus server by what came of them.", labels=("result",)
    )
    for result in Result:
        attempts.add_metric((result,), reader.results[result])
    yield attempts
    rejected = CounterMetricFamily(
        "pareto_outer_loop_rejected_values", "Values that were no share in [0, 1].", labels=("signal",)
    )
    for signal, count in list(reader.rejected.items()):
        rejected.add_metric((signal,), count)
    yield rejected
    yield GaugeMetricFamily(
        "pareto_outer_loop_fresh", "1 while advice is in force.", value=float(reader.hints is not None)
    )
    if reader.age_s is not None:
        yield GaugeMetricFamily(
            "pareto_outer_loop_age_seconds", "Since the last reading that was taken.", value=reader.age_s
        )


def _read(reader: OuterLoopReader, targets: Mapping[str, float]) -> Iterator[Metric]:
    hints, last = reader.hints, reader.last
    caution = GaugeMetricFamily(
        "pareto_outer_loop_caution_ratio", "What planning margins are multiplied by; 1 is as without it.", labels=MODEL
    )
    for family in targets:
        caution.add_metric((family,), 1.0 if hints is None else hints.caution.get(family, 1.0))
    changes = CounterMetricFamily("pareto_outer_loop_changes", "Changes of that.", labels=("model", "direction"))
    for key, count in list(reader.changes.items()):
        changes.add_metric(key, count)
    yield from (caution, changes)
    burn = GaugeMetricFamily(
        "pareto_outer_loop_burn_ratio", "Error budgets per period, as last read.", labels=("model", "window")
    )
    downgraded = GaugeMetricFamily(
        "pareto_outer_loop_downgraded_ratio",
        "How far answers are from the best variant (0) to the cheapest (1), over all replicas, as last read.",
        labels=MODEL,
    )
    pressure = GaugeMetricFamily("pareto_outer_loop_pressure_ratio", "Of this host, as last read.", labels=("source",))
    for family, reading in () if last is None else last.readings.families.items():
        budget = 1.0 - targets.get(family, 0.0)
        for window, share in (("short", reading.short), ("long", reading.long)):
            if share is not None:
                burn.add_metric((family, window), share / budget)
        if reading.downgraded is not None:
            downgraded.add_metric((family,), reading.downgraded)
    for source, value in () if last is None else last.pressures.items():
        pressure.add_metric((source,), value)
    yield from (burn, downgraded, pressure)
    yield GaugeMetricFamily(
        "pareto_outer_loop_pressed", "1 while the host counts as under pressure.", value=float(reader.pressed)
    )
