"""Triton's statistics per variant, added up from the records of requests and batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from time import time

from router.contract import BatchRecord, Record
from service.oip.statistics import Duration, ModelCounters


class Statistics:
    """Observes records; read by `GET /v2/models[/{m}[/versions/{v}]]/stats`.

    Rows answered by several variants count for the version `mixed`, requests without an answer for the version
    that the protocol leaves empty.
    """

    def __init__(self) -> None:
        self._counters: dict[tuple[str, str], ModelCounters] = {}

    def expect(self, family: str, variants: Iterable[str]) -> None:
        """Show these variants from the start, with zeros."""
        for variant in variants:
            self._of(family, variant)

    def counters(self, family: str | None = None, variant: str | None = None) -> list[ModelCounters]:
        """The counters of one family or variant, or all."""
        return [
            counters
            for (name, version), counters in self._counters.items()
            if family in (None, name) and variant in (None, version)
        ]

    def observe(self, records: Sequence[Record], batches: Sequence[BatchRecord]) -> None:
        """See `service.observers.Observer`."""
        for record in records:
            if record.audit:
                continue
            counters = self._of(record.family, record.variant)
            total_s = record.finished_s - record.arrival_s
            if record.variant:
                _add(counters.success, total_s)
                _add(counters.queue, record.queue_s)
                _add(counters.compute, record.compute_s)
            else:
                _add(counters.fail, total_s)
        for dispatch, finished_s, failed, _ in batches:
            counters = self._of(dispatch.family, dispatch.variant)
            if failed:
                continue
            rows = len(dispatch.items)
            counters.inference_count += rows
            counters.execution_count += 1
            counters.last_inference_s = time()
            _add(counters.batches.setdefault(rows, Duration()), finished_s - dispatch.started_s)

    def _of(self, family: str, variant: str) -> ModelCounters:
        counters = self._counters.get((family, variant))
        if counters is None:
            counters = self._counters[family, variant] = ModelCounters(family, variant)
        return counters


def _add(duration: Duration, seconds: float) -> None:
    duration.count += 1
    duration.total_s += seconds
