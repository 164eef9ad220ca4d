"""Prometheus metrics, from nothing but the records of requests and batches.

Numbers are added up in plain Python and turned into metric families when `/metrics` is read, through the client
library's public custom-collector interface. Updating a multiprocess histogram costs some 20 microseconds a request
on this path; adding up costs about two, and one worker process per replica leaves nothing to merge.
Label values are closed sets (families and variants loaded, outcomes, reasons) or bounded (`tenant`: those that the
settings name, the rest is `other`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from router.contract import NEVER, BatchRecord, Outcome, Record

if TYPE_CHECKING:
    from service.gateway import Gateway

LATENCY_EDGES = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds. Five edges under 5 ms; an edge is added at every configured SLO."""
RATIO_EDGES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 5.0)
"""Latency / SLO: dense around 1."""
PREDICTION_EDGES = (0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5, 2.0, 3.0, 5.0)
BATCH_EDGES = (1, 2, 4, 8, 16, 32, 64, 128)


class Sums:
    """One histogram series: counts per bucket and the sum."""

    __slots__ = ("counts", "edges", "total")

    def __init__(self, edges: Sequence[float]) -> None:
        self.edges = edges
        self.counts = [0] * (len(edges) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.edges, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper edge, as the exposition format wants them."""
        names = [*(f"{float(edge)}" for edge in self.edges), "+Inf"]
        return list(zip(names, map(float, accumulate(self.counts)), strict=True))


class _Answered:
    """What is added up per (family, variant)."""

    __slots__ = ("compute", "latency", "met", "quality", "queue", "ratio")

    def __init__(self, latency_edges: Sequence[float]) -> None:
        self.latency = Sums(latency_edges)
        self.ratio = Sums(RATIO_EDGES)
        self.queue = Sums(latency_edges)
        self.compute = Sums(latency_edges)
        self.met = 0
        self.quality = 0.0


class _Batches:
    """What is added up per (family, variant) for batches."""

    __slots__ = ("prediction", "rows", "size")

    def __init__(self) -> None:
        self.size = Sums(BATCH_EDGES)
        self.prediction = Sums(PREDICTION_EDGES)
        self.rows = 0


class Metrics(Collector):
    """Observes records; collects on demand."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._edges: tuple[float, ...] = LATENCY_EDGES
        self._requests: dict[tuple[str, str, str, str, str], int] = {}
        self._answered: dict[tuple[str, str], _Answered] = {}
        self._batches: dict[tuple[str, str], _Batches] = {}
        self._failed: dict[tuple[str, str], int] = {}
        self._rejected: dict[str, int] = {}
        self._busy_s: dict[int, float] = {}
        self._rows: dict[str, int] = {}
        self._judged: dict[tuple[str, str], int] = {}
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def expect_slos(self, slos_s: Iterable[float]) -> None:
        """Give every latency histogram an edge at these SLOs; called once, before the first request."""
        self._edges = tuple(sorted({*LATENCY_EDGES, *slos_s}))

    def observe(self, records: Sequence[Record], batches: Sequence[BatchRecord]) -> None:
        """See `service.dispatcher.Observer`."""
        requests = self._requests
        for record in records:
            key = (record.family, record.variant, record.outcome, record.reason, record.tenant)
            requests[key] = requests.get(key, 0) + 1
            if record.slo_s != NEVER and record.outcome is not Outcome.CANCELLED:
                pair = (record.family, record.variant)
                self._judged[pair] = self._judged.get(pair, 0) + 1
            if record.variant:
                self._add_answered(record)
        for batch in batches:
            self._add_batch(batch)

    def protocol_error(self, status: int) -> None:
        """Count a request that was refused before it reached the scheduler."""
        key = str(status)
        self._rejected[key] = self._rejected.get(key, 0) + 1

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)

    def _add_answered(self, record: Record) -> None:
        key = (record.family, record.variant)
        sums = self._answered.get(key)
        if sums is None:
            sums = self._answered[key] = _Answered(self._edges)
        total_s = record.finished_s - record.arrival_s
        sums.latency.add(total_s)
        sums.queue.add(record.queue_s)
        sums.compute.add(record.compute_s)
        if record.slo_s != NEVER:
            sums.ratio.add(total_s / record.slo_s)
            sums.met += record.slo_met
        sums.quality += record.quality
        self._rows[record.family] = self._rows.get(record.family, 0) + record.rows

    def _add_batch(self, batch: BatchRecord) -> None:
        dispatch = batch.dispatch
        key = (dispatch.family, dispatch.variant)
        busy_s = batch.finished_s - dispatch.started_s
        self._busy_s[dispatch.slot] = self._busy_s.get(dispatch.slot, 0.0) + busy_s
        if batch.failed:
            self._failed[key] = self._failed.get(key, 0) + 1
            return
        sums = self._batches.get(key)
        if sums is None:
            sums = self._batches[key] = _Batches()
        sums.size.add(len(dispatch.items))
        sums.rows += len(dispatch.items)
        sums.prediction.add(dispatch.predicted_s / busy_s if busy_s > 0.0 else 1.0)

    def collect(self) -> Iterator[Metric]:
        """Turn the sums into metric families; called by the registry, on a thread of its own.

        Dictionaries are copied before they are walked, because the event loop adds to them meanwhile.
        """
        yield from self._collect_requests()
        yield from self._collect_batches()
        yield from self._collect_state()

    def _collect_requests(self) -> Iterator[Metric]:
        labels = ("model", "variant", "outcome", "reason", "tenant")
        requests = CounterMetricFamily("pareto_requests", "Requests by how and why they ended.", labels=labels)
        for ended, count in list(self._requests.items()):
            requests.add_metric(ended, count)
        yield requests
        refused = CounterMetricFamily("pareto_protocol_errors", "Requests refused as malformed.", labels=("status",))
        for status, count in list(self._rejected.items()):
            refused.add_metric((status,), count)
        yield refused
        pair = ("model", "variant")
        answered = list(self._answered.items())
        yield _histogram(
            "pareto_request_latency_seconds", "Arrival to answer.", pair, ((k, s.latency) for k, s in answered)
        )
        yield _histogram(
            "pareto_request_latency_slo_ratio", "Latency over SLO.", pair, ((k, s.ratio) for k, s in answered)
        )
        yield _histogram("pareto_request_queue_seconds", "Arrival to start.", pair, ((k, s.queue) for k, s in answered))
        yield _histogram(
            "pareto_request_compute_seconds", "Start to answer.", pair, ((k, s.compute) for k, s in answered)
        )
        met = CounterMetricFamily("pareto_slo_met", "Answers that met their SLO.", labels=pair)
        judged = CounterMetricFamily(
            "pareto_slo_judged", "Requests that had an SLO, refused ones included.", labels=pair
        )
        quality = CounterMetricFamily(
            "pareto_served_quality_sum", "Sum of the measured quality of the variants that answered.", labels=pair
        )
        for key, sums in answered:
            met.add_metric(key, sums.met)
            quality.add_metric(key, sums.quality)
        for key, count in list(self._judged.items()):
            judged.add_metric(key, count)
        yield from (met, judged, quality)
        rows = CounterMetricFamily("pareto_answered_rows", "Rows answered.", labels=("model",))
        for family, count in list(self._rows.items()):
            rows.add_metric((family,), count)
        yield rows

    def _collect_batches(self) -> Iterator[Metric]:
        pair = ("model", "variant")
        batches = list(self._batches.items())
        yield _histogram("pareto_batch_rows", "Rows in a batch.", pair, ((k, s.size) for k, s in batches))
        yield _histogram(
            "pareto_batch_predicted_ratio",
            "Predicted over observed seconds of a batch; under 1 means plans too short.",
            pair,
            ((k, s.prediction) for k, s in batches),
        )
        failed = CounterMetricFamily("pareto_failed_batches", "Batches without an answer.", labels=pair)
        for key, count in list(self._failed.items()):
            failed.add_metric(key, count)
        yield failed
        busy = CounterMetricFamily(
            "pareto_executor_busy_seconds",
            "Seconds that a slot was busy; its rate is the busy share.",
            labels=("slot",),
        )
        for slot in range(self._gateway.settings.slot_count):
            busy.add_metric((str(slot),), self._busy_s.get(slot, 0.0))
        yield busy

    def _collect_state(self) -> Iterator[Metric]:
        gateway, scheduler = self._gateway, self._gateway.scheduler
        yield _gauge("pareto_ready", "1 while requests are taken.", float(gateway.phase.value == "ready"))
        if scheduler is None:
            return
        yield _gauge("pareto_queued_rows", "Rows that wait.", scheduler.queued_rows)
        yield _gauge("pareto_unfinished_requests", "Requests without an outcome.", scheduler.unfinished)
        yield _gauge("pareto_slots", "Executor slots.", gateway.settings.slot_count)
        yield _gauge("pareto_slots_busy", "Executor slots that run a batch.", scheduler.busy_slots)
        pair = ("model", "variant")
        quality = GaugeMetricFamily("pareto_variant_quality_ratio", "Measured quality of a variant.", labels=pair)
        correction = GaugeMetricFamily(
            "pareto_latency_correction_ratio", "Observed over profiled seconds, as learnt.", labels=pair
        )
        for name, family in scheduler.families.items():
            model = scheduler.latency(name)
            for index, variant in enumerate(family.variants):
                quality.add_metric((name, variant.name), variant.quality)
                correction.add_metric((name, variant.name), model.correction(index))
        yield from (quality, correction)


def _histogram(name: str, text: str, labels: tuple[str, ...], series: Iterable[tuple[Any, Sums]]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for key, sums in series:
        family.add_metric(key, sums.buckets(), sums.total)
    return family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
