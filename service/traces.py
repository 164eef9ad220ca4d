"""Traced requests as OpenTelemetry spans for a collector, over OTLP/HTTP.

An observer: spans are made of records whose answers are on their way already, and sent by a thread. A collector that is
away or slow costs spans, never requests: so many wait, more are counted as dropped.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from time import monotonic, time
from urllib.parse import urlsplit
from uuid import uuid4

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_SERVICE_NAME
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client.core import CounterMetricFamily, Metric

from router.contract import BatchRecord, Record
from service import __version__
from service.spans import RequestTrace

logger = logging.getLogger("pareto.traces")

MOST_WAITING = 4096
"""Spans that wait to be sent; a request has four or more, and a batch that is sent at most `BATCH`."""
BATCH = 512
FLUSH_S = 2.0
"""For so long a replica that ends waits for the last spans to be taken."""
DEFAULT_PATH = "/v1/traces"
"""Where collectors take traces; what an endpoint without a path means."""


class Traces:
    """Observes records and sends what they say of traced requests to `endpoint`, a URL.

    `label` is the name under which a tenant is shown. `exporter` stands in for the one over OTLP/HTTP, which reads the
    usual variables: `OTEL_EXPORTER_OTLP_HEADERS`, `..._COMPRESSION`, `..._TIMEOUT`, `..._CERTIFICATE`.
    """

    def __init__(self, endpoint: str, label: Callable[[str], str], exporter: SpanExporter | None = None) -> None:
        # What they have to say of a collector that is away is said here, once.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
        self._label = label
        attributes = {"service.version": __version__, "service.instance.id": str(uuid4())}
        if OTEL_SERVICE_NAME not in os.environ:
            attributes["service.name"] = "pareto-gateway"
        self._resource = Resource.create(attributes)
        self._exporter = _Counted(exporter or OTLPSpanExporter(_with_path(endpoint)), endpoint)
        self._processor = BatchSpanProcessor(self._exporter, max_queue_size=MOST_WAITING, max_export_batch_size=BATCH)
        self._given = 0
        self._dropped = 0

    def observe(self, records: Sequence[Record], batches: Sequence[BatchRecord]) -> None:
        """See `service.observers.Observer`."""
        epoch_s = 0.0
        for record in records:
            if not record.origin.span:
                continue
            # Taken anew each time: clocks are set while servers run.
            epoch_s = epoch_s or time() - monotonic()
            spans = RequestTrace(record, self._label(record.tenant), self._resource, epoch_s).spans
            if self._given - self._exporter.taken + len(spans) > MOST_WAITING:
                self._dropped += len(spans)
                continue
            self._given += len(spans)
            for span in spans:
                self._processor.on_end(span)

    async def close(self) -> None:
        """Send what waits, for `FLUSH_S` at most, and nothing afterwards."""
        # The processor's own shutdown waits for thirty seconds, and a thread of the usual pool would be waited for.
        closing = threading.Thread(target=self._processor.shutdown, name="traces-end", daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, FLUSH_S)
        self._exporter.closed = True

    def collect(self) -> Iterator[Metric]:
        """What became of the spans, for Prometheus."""
        spans = CounterMetricFamily("pareto_trace_spans", "Spans by what became of them.", labels=("result",))
        results = {"exported": self._exporter.exported, "failed": self._exporter.failed, "dropped": self._dropped}
        for result, count in results.items():
            spans.add_metric((result,), count)
        yield spans


class _Counted(SpanExporter):
    """Counts what an exporter takes, and says when it stops and when it goes on; the processor's thread calls it."""

    def __init__(self, inner: SpanExporter, endpoint: str) -> None:
        self._inner = inner
        self._endpoint = endpoint
        self._fails = False
        self.taken = self.exported = self.failed = 0
        self.closed = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch."""
        self.taken += len(spans)
        if self.closed:
            return SpanExportResult.FAILURE
        result = self._inner.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.exported += len(spans)
            if self._fails:
                logger.info("%s takes spans again; %d were lost", self._endpoint, self.failed)
            self._fails = False
        else:
            self.failed += len(spans)
            if not self._fails:
                logger.warning("%s takes no spans; they are dropped until it does", self._endpoint)
            self._fails = True
        return result

    def shutdown(self) -> None:
        """See `SpanExporter`."""
        self._inner.shutdown()


def _with_path(endpoint: str) -> str:
    at = urlsplit(endpoint)
    return endpoint if at.path.strip("/") else at._replace(path=DEFAULT_PATH).geturl()
