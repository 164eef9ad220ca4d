"""MLCommons LoadGen's Server scenario against a gateway: LoadGen issues, times and judges; this only carries.

LoadGen draws Poisson arrivals of labelled rows, counts latency from when each was scheduled, and calls a run valid if
the 99th percentile keeps the target latency with 99 % confidence (its early stopping rule). It knows no refusal: a row
that was refused or not answered is handed in at twice the target latency, so that it counts as late.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mlperf_loadgen
import orjson
import uvloop

from loadtests import oip
from loadtests.keepalive import Connections
from loadtests.outcomes import Fate
from loadtests.samples import Samples

PERCENTILE = 0.99
UNANSWERED = 2.0
"""Times the target latency: when LoadGen is told of a row that has no answer."""
LEAST_QUERIES = 1000
"""LoadGen goes on until it has issued so many: fewer say too little of a 99th percentile."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked for: `latency_s` is what LoadGen demands, `slo_s` what requests tell the gateway, a little less
    where the way there and back takes time.
    """

    url: str
    samples: Samples
    latency_s: float
    slo_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What LoadGen said of one run at `rate` scheduled requests per second, and what the adapter saw of the answers.

    `why` is LoadGen's own text where the run is invalid. `late` is the share of all queries over the target latency,
    by LoadGen's clock; the other shares are of all queries, `answers` (by variant) of the answered.
    `effective_accuracy` counts the correct ones in time by the adapter's clock. `client_cpu` is the share of a core
    that LoadGen and adapter used.
    """

    rate: float
    valid: bool
    why: str
    queries: int
    late: float
    p50_s: float
    p99_s: float
    effective_accuracy: float
    refused: float
    failed: float
    answers: dict[str, float]
    client_cpu: float


def judge(target: Target, rate: float, duration_s: float, least_queries: int = LEAST_QUERIES) -> Verdict:
    """One run of LoadGen. Raises `ValueError` where it left no result."""
    settings = mlperf_loadgen.TestSettings()
    settings.scenario = mlperf_loadgen.TestScenario.Server
    settings.mode = mlperf_loadgen.TestMode.PerformanceOnly
    settings.server_target_qps = rate
    settings.server_target_latency_ns = round(target.latency_s * 1e9)
    settings.server_target_latency_percentile = PERCENTILE
    settings.min_duration_ms = round(duration_s * 1000)
    settings.min_query_count = least_queries
    rows = len(target.samples)
    cpu_s, started_s = time.process_time(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, _adapter(target) as adapter:
        log = mlperf_loadgen.LogSettings()
        output = mlperf_loadgen.LogOutputSettings()
        output.outdir, output.copy_summary_to_stdout = folder, False
        log.log_output, log.enable_trace = output, False
        system = mlperf_loadgen.ConstructSUT(adapter.issue, _nothing)
        library = mlperf_loadgen.ConstructQSL(rows, rows, _nothing, _nothing)
        try:
            mlperf_loadgen.StartTestWithLogSettings(system, library, settings, log)
        finally:
            mlperf_loadgen.DestroyQSL(library)
            mlperf_loadgen.DestroySUT(system)
        found = read_detail(Path(folder, "mlperf_log_detail.txt"))
    client_cpu = (time.process_time() - cpu_s) / (time.perf_counter() - started_s)
    return _verdict(rate, found, adapter, client_cpu)


def read_detail(path: Path) -> dict[str, Any]:
    """The values of LoadGen's detail log by key. Raises `ValueError` where it holds no result."""
    values: dict[str, Any] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        _, found, entry = line.partition(":::MLLOG ")
        if found:
            parsed = orjson.loads(entry)
            values[parsed["key"]] = parsed["value"]
    if "result_validity" not in values:
        raise ValueError("LoadGen left no result")
    return values


class Adapter:
    """Carries LoadGen's queries to the gateway and the answers back, on an event loop in a thread of its own."""

    def __init__(self, target: Target, loop: asyncio.AbstractEventLoop) -> None:
        self._target = target
        self._loop = loop
        self._requests = _requests(target)
        self._index = {label: number for number, label in enumerate(target.samples.labels)}
        self._label = target.samples.label.tolist()
        self._connections: Connections | None = None
        self.fates: Counter[Fate] = Counter()
        self.variants: Counter[str] = Counter()
        self.good = 0
        """Correct answers in time."""

    def issue(self, queries: Sequence[Any]) -> None:
        """Called by LoadGen, from a thread of its own."""
        now = time.perf_counter()
        for query in queries:
            self._loop.call_soon_threadsafe(self._ask, query.id, query.index, now)

    async def open(self) -> None:
        """Get ready, on the event loop."""
        parts = urlsplit(self._target.url)
        self._connections = Connections(parts.hostname or "localhost", parts.port or 80)

    async def close(self) -> None:
        """Close all connections."""
        if self._connections is not None:
            self._connections.close()

    def _ask(self, query: int, row: int, issued_s: float) -> None:
        assert self._connections is not None, "opened before LoadGen issues"

        def answered(status: int, headers: dict[bytes, bytes], body: bytes) -> None:
            self._answered(query, row, issued_s, status, headers, body)

        self._connections.ask(self._requests[row], answered)

    def _answered(
        self, query: int, row: int, issued_s: float, status: int, headers: dict[bytes, bytes], body: bytes
    ) -> None:
        fate = oip.fate_of(status)
        latency_s = time.perf_counter() - issued_s
        if fate is Fate.ANSWERED:
            _complete(query)
            try:
                correct = oip.label_of(body, self._index) == self._label[row]
            except ValueError:
                self.fates[Fate.FAILED] += 1
                return
            self.good += correct and latency_s <= self._target.latency_s
            self.variants[headers.get(oip.VARIANT_HEADER.encode(), b"").decode() or "unnamed"] += 1
        else:
            self._loop.call_later(UNANSWERED * self._target.latency_s - latency_s, _complete, query)
        self.fates[fate] += 1


@contextmanager
def _adapter(target: Target) -> Iterator[Adapter]:
    """An adapter whose event loop runs."""
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="adapter")
    thread.start()
    adapter = Adapter(target, loop)
    try:
        asyncio.run_coroutine_threadsafe(adapter.open(), loop).result()
        yield adapter
        asyncio.run_coroutine_threadsafe(adapter.close(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _requests(target: Target) -> list[bytes]:
    """One whole request for each sample."""
    host = urlsplit(target.url).netloc
    own = {"host": host, "content-type": "application/json", oip.SLO_HEADER: oip.slo_text(target.slo_s)}
    head = oip.request_line(oip.infer_path(target.samples.family)) + oip.header_lines(own)
    return [head + oip.request_end(oip.infer_body(target.samples, row)) for row in range(len(target.samples))]


def _complete(query: int) -> None:
    mlperf_loadgen.QuerySamplesComplete([mlperf_loadgen.QuerySampleResponse(query, 0, 0)])


def _nothing(*_: object) -> None:
    """Rows are in memory already, and nothing is held back to be flushed."""


def _verdict(rate: float, found: dict[str, Any], adapter: Adapter, client_cpu: float) -> Verdict:
    queries = int(found["result_query_count"])
    valid = found["result_validity"] == "VALID"
    checks = {
        "result_perf_constraints_met": f"the {PERCENTILE:.0%} percentile is over the target latency",
        "result_min_duration_met": "too short",
        "result_min_queries_met": "too few queries",
        "early_stopping_met": " ".join(str(found.get("early_stopping_result", "")).replace("*", "").split()),
    }
    answered = adapter.variants.total()
    return Verdict(
        rate=rate,
        valid=valid,
        why="" if valid else "; ".join(why for key, why in checks.items() if not found.get(key, True)),
        queries=queries,
        late=int(found["result_overlatency_query_count"]) / queries,
        p50_s=found["result_50.00_percentile_latency_ns"] / 1e9,
        p99_s=found["result_99.00_percentile_latency_ns"] / 1e9,
        effective_accuracy=adapter.good / queries,
        refused=adapter.fates[Fate.REFUSED] / queries,
        failed=(adapter.fates[Fate.FAILED] + adapter.fates[Fate.EXPIRED]) / queries,
        answers={name: count / answered for name, count in adapter.variants.most_common()},
        client_cpu=client_cpu,
    )
