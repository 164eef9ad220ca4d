"""Metrics of how a replica stands when it is asked: ready or not, what waits, what is loaded, what is believed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily, Metric

from service.hidden_families import is_hidden
from service.memory_metrics import collect_memory
from service.metric_families import gauge

if TYPE_CHECKING:
    from service.gateway import Gateway


def collect_state(gateway: Gateway) -> Iterator[Metric]:
    """Readiness at any time; once there is a scheduler, what waits and runs, and what is believed of variants."""
    scheduler = gateway.scheduler
    yield gauge("pareto_ready", "1 while requests are welcome.", float(gateway.is_welcoming))
    if scheduler is None:
        return
    if gateway.residency is not None:
        yield from collect_memory(gateway.residency, scheduler, gateway.reader.footprint)
    yield from gateway.breakages.collect(scheduler)
    if gateway.traces is not None:
        yield from gateway.traces.collect()
    yield gauge("pareto_queued_rows", "Rows that wait.", scheduler.queued_rows)
    yield gauge("pareto_unfinished_requests", "Requests without an outcome.", scheduler.unfinished)
    yield gauge("pareto_slots", "Executor slots.", gateway.settings.slot_count)
    yield gauge("pareto_slots_busy", "Executor slots that run a batch.", scheduler.busy_slots)
    pair = ("model", "variant")
    quality = GaugeMetricFamily("pareto_variant_quality_ratio", "Measured quality of a variant.", labels=pair)
    believed = GaugeMetricFamily(
        "pareto_variant_believed_quality_ratio", "What a variant is believed to be worth now.", labels=pair
    )
    correction = GaugeMetricFamily(
        "pareto_latency_correction_ratio", "Observed over profiled seconds, as learnt.", labels=pair
    )
    for name, family in scheduler.families.items():
        if is_hidden(name):
            # A revision on trial has variants of the same names.
            continue
        try:
            model = scheduler.latency(name)
        except KeyError:
            # It was unloaded meanwhile: scrapes run on a thread of their own.
            continue
        for index, variant in enumerate(family.variants):
            quality.add_metric((name, variant.name), variant.measured)
            believed.add_metric((name, variant.name), variant.quality)
            correction.add_metric((name, variant.name), model.correction(index))
    yield from (quality, believed, correction)
