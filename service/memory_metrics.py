"""Metrics of the memory budget: what is loaded, what loads took, and who waited for them."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from router.scheduler import Scheduler
from service.footprint import Footprint
from service.hidden_families import model_of
from service.in_memory import taken_by_family
from service.metric_families import gauge, histogram
from service.residency import Residency


def collect_memory(residency: Residency, scheduler: Scheduler, footprint: Footprint) -> Iterator[Metric]:
    """The budget, what is in memory, and how it got there."""
    yield gauge("pareto_memory_budget_bytes", "Resident memory that is allowed.", residency.room.budget_bytes)
    resident_bytes = footprint.resident_bytes()
    yield gauge("pareto_memory_resident_bytes", "Resident memory of all that serves.", resident_bytes)
    models = GaugeMetricFamily("pareto_model_bytes", "What loaded variants are thought to take.", labels=("model",))
    held: dict[str, int] = {}
    for name, size in taken_by_family(residency.pieces).items():
        held[model_of(name)] = held.get(model_of(name), 0) + size
    for name, size in held.items():
        models.add_metric((name,), size)
    yield models
    ended = CounterMetricFamily("pareto_model_loads", "Variants that were loaded, or not.", labels=("result",))
    ended.add_metric(("loaded",), residency.moves.loads)
    ended.add_metric(("failed",), residency.moves.failures)
    yield ended
    evicted = CounterMetricFamily("pareto_model_evictions", "Variants that were unloaded for others.")
    evicted.add_metric((), residency.moves.evictions)
    yield evicted
    yield histogram("pareto_model_load_seconds", "Opening and warming a variant.", (), [((), residency.moves.load_s)])
    yield histogram(
        "pareto_cold_wait_seconds",
        "How long the first request of a family waited for its load.",
        (),
        [((), residency.moves.cold_s)],
    )
    yield gauge("pareto_cold_rows", "Rows that wait for a variant to be loaded.", scheduler.cold_rows)
