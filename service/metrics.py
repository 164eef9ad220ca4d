"""Prometheus metrics, from nothing but the records of requests and batches.

Numbers are added up in plain Python and turned into metric families when `/metrics` is read, through the client
library's public custom-collector interface. Updating a multiprocess histogram costs some 20 microseconds a request
on this path; adding up costs about two, and one worker process per replica leaves nothing to merge.
Label values are closed sets (families and variants loaded, outcomes, reasons) or bounded (`tenant`: those that the
settings name, `default-flow` where a request names none, the rest is `other`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from router.contract import BatchRecord, Record
from router.request import NEVER
from router.words import Outcome
from service.canary_metrics import collect_canaries
from service.evenness import Evenness
from service.metric_families import gauge, histogram
from service.outer_loop_metrics import collect_outer_loop
from service.quality_metrics import collect_quality
from service.state_metrics import collect_state
from service.sums import LATENCY_EDGES, Answered, Batches, FirstAnswers

if TYPE_CHECKING:
    from service.gateway import Gateway


class Metrics(Collector):
    """Observes records; collects on demand."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._edges: tuple[float, ...] = LATENCY_EDGES
        self._requests: dict[tuple[str, str, str, str, str], int] = {}
        self._answered: dict[tuple[str, str], Answered] = {}
        self._batches: dict[tuple[str, str], Batches] = {}
        self._first: dict[tuple[str, str, str], FirstAnswers] = {}
        self._escalated: dict[tuple[str, str, str], int] = {}
        self._failed: dict[tuple[str, str], int] = {}
        self._rejected: dict[str, int] = {}
        self._busy_s: dict[int, float] = {}
        self._on_device: dict[str, int] = {}
        self._rows: dict[str, int] = {}
        self._judged: dict[tuple[str, str], int] = {}
        self._evenness = Evenness()
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def expect_slos(self, slos_s: Iterable[float]) -> None:
        """Give every latency histogram an edge at these SLOs; called once, before the first request."""
        self._edges = tuple(sorted({*LATENCY_EDGES, *slos_s}))

    def observe(self, records: Sequence[Record], batches: Sequence[BatchRecord]) -> None:
        """See `service.observers.Observer`."""
        requests, label = self._requests, self._gateway.tenants.label
        for record in records:
            if record.audit:
                continue
            key = (record.family, record.variant, record.outcome, record.reason, label(record.tenant))
            requests[key] = requests.get(key, 0) + 1
            self._evenness.add(record)
            if record.slo_s != NEVER and record.outcome is not Outcome.CANCELLED:
                pair = (record.family, record.variant)
                self._judged[pair] = self._judged.get(pair, 0) + 1
            if record.variant:
                self._add_answered(record)
        for batch in batches:
            self._add_batch(batch)

    def protocol_error(self, status: int) -> None:
        """Count a request that was refused, with this HTTP status, before it was queued."""
        key = str(status)
        self._rejected[key] = self._rejected.get(key, 0) + 1

    @property
    def protocol_errors(self) -> dict[str, int]:
        """Requests refused before they were queued, by HTTP status."""
        return self._rejected

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)

    def _add_answered(self, record: Record) -> None:
        key = (record.family, record.variant)
        sums = self._answered.get(key)
        if sums is None:
            sums = self._answered[key] = Answered(self._edges)
        total_s = record.finished_s - record.arrival_s
        sums.latency.add(total_s)
        sums.queue.add(record.queue_s)
        sums.compute.add(record.compute_s)
        if 0.0 < record.slo_s < NEVER:
            sums.ratio.add(total_s / record.slo_s)
            sums.met += record.slo_met
        sums.quality += record.quality
        first_key = (record.family, record.path[0] if record.path else record.variant, record.escalation)
        first = self._first.get(first_key)
        if first is None:
            first = self._first[first_key] = FirstAnswers()
        first.count += 1
        first.confidence += record.confidence
        self._rows[record.family] = self._rows.get(record.family, 0) + record.rows

    def _add_batch(self, batch: BatchRecord) -> None:
        dispatch = batch.dispatch
        key = (dispatch.family, dispatch.variant)
        busy_s = batch.finished_s - dispatch.started_s
        self._busy_s[dispatch.slot] = self._busy_s.get(dispatch.slot, 0.0) + busy_s
        self._on_device[dispatch.device] = self._on_device.get(dispatch.device, 0) + 1
        if batch.failed:
            self._failed[key] = self._failed.get(key, 0) + 1
            return
        sums = self._batches.get(key)
        if sums is None:
            sums = self._batches[key] = Batches()
        sums.size.add(len(dispatch.items))
        sums.rows += len(dispatch.items)
        sums.prediction.add(dispatch.predicted_s / busy_s if busy_s > 0.0 else 1.0)
        at = dispatch.items[0].at
        loaded = self._gateway.revision(dispatch.family, dispatch.revision) if at >= 0 else None
        if loaded is not None:
            # The rows of a batch share a lane, and so the variant that answered them before.
            triple = (dispatch.family, loaded.family.variants[at].name, dispatch.variant)
            self._escalated[triple] = self._escalated.get(triple, 0) + len(dispatch.items)

    def collect(self) -> Iterator[Metric]:
        """Turn the sums into metric families; called by the registry, on a thread of its own.

        Dictionaries are copied before they are walked, because the event loop adds to them meanwhile.
        """
        yield from self._collect_requests()
        yield from self._evenness.collect()
        yield from self._collect_cascades()
        yield from self._collect_batches()
        yield from collect_state(self._gateway)
        yield from collect_quality(self._gateway.quality, self._gateway.feedback)
        yield from collect_canaries(self._gateway.canaries)
        yield from collect_outer_loop(self._gateway.outer_loop, self._gateway.slo_targets())

    def _collect_requests(self) -> Iterator[Metric]:
        labels = ("model", "variant", "outcome", "reason", "tenant")
        requests = CounterMetricFamily("pareto_requests", "Requests by how and why they ended.", labels=labels)
        for ended, count in list(self._requests.items()):
            requests.add_metric(ended, count)
        yield requests
        refused = CounterMetricFamily(
            "pareto_protocol_errors", "Requests refused before they were queued, by HTTP status.", labels=("status",)
        )
        for status, count in list(self._rejected.items()):
            refused.add_metric((status,), count)
        yield refused
        kept_out = CounterMetricFamily(
            "pareto_access_refusals", "Requests without a key, or one that may not.", labels=("status", "role")
        )
        for (code, role), count in list(self._gateway.access.refusals.items()):
            kept_out.add_metric((str(code), role), count)
        yield kept_out
        connections = self._gateway.connections
        closed = CounterMetricFamily(
            "pareto_connections_closed", "Connections that were closed for going beyond a bound.", labels=("reason",)
        )
        for reason, count in list(connections.closed.items()):
            closed.add_metric((reason,), count)
        yield closed
        yield gauge("pareto_connections", "Open HTTP connections.", connections.open)
        pair = ("model", "variant")
        answered = list(self._answered.items())
        yield histogram(
            "pareto_request_latency_seconds", "Arrival to answer.", pair, ((k, s.latency) for k, s in answered)
        )
        yield histogram(
            "pareto_request_latency_slo_ratio", "Latency over SLO.", pair, ((k, s.ratio) for k, s in answered)
        )
        yield histogram("pareto_request_queue_seconds", "Arrival to start.", pair, ((k, s.queue) for k, s in answered))
        yield histogram(
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

    def _collect_cascades(self) -> Iterator[Metric]:
        first = ("model", "variant", "escalation")
        answers = CounterMetricFamily(
            "pareto_first_answers",
            "Answered requests by the variant that answered their first row first, and why a better one did or not.",
            labels=first,
        )
        confidence = CounterMetricFamily(
            "pareto_first_answer_confidence_sum", "Sum of the confidences of those first answers.", labels=first
        )
        for key, sums in list(self._first.items()):
            answers.add_metric(key, sums.count)
            confidence.add_metric(key, sums.confidence)
        escalated = CounterMetricFamily(
            "pareto_escalated_rows",
            "Rows that a better variant answered again, wanted or not by then.",
            labels=("model", "from_variant", "to_variant"),
        )
        for key, count in list(self._escalated.items()):
            escalated.add_metric(key, count)
        yield from (answers, confidence, escalated)

    def _collect_batches(self) -> Iterator[Metric]:
        pair = ("model", "variant")
        batches = list(self._batches.items())
        yield histogram("pareto_batch_rows", "Rows in a batch.", pair, ((k, s.size) for k, s in batches))
        yield histogram(
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
        devices = self._gateway.settings.devices
        if devices:
            ran = CounterMetricFamily("pareto_device_batches", "Batches that ran on a device.", labels=("device",))
            slots = GaugeMetricFamily("pareto_device_slots", "Executor slots of a device.", labels=("device",))
            for device, own in devices.items():
                ran.add_metric((device,), self._on_device.get(device, 0))
                slots.add_metric((device,), own.slots)
            yield from (ran, slots)
