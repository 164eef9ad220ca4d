"""One generator: sends plans from its process, tells how it goes, and hands in what became of each request.

Imported only where locust has made sockets cooperative.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import gevent  # type: ignore[import-untyped]  # gevent carries no types
import numpy as np

from loadtests import oip
from loadtests.generator_faults import Sending
from loadtests.harness.cargo import Cargo, Plan
from loadtests.harness.connections import Connections, NoAnswerError, NoSocketError
from loadtests.harness.part import Part
from loadtests.openloop import OpenLoop
from loadtests.outcomes import NO_SOCKET, Fate, Reply, Results
from loadtests.scoring import is_in_time
from loadtests.sender import go_first

TELL_EVERY_S = 0.5
MOST_OPEN = 8192
"""Requests without an answer at a time; a gateway that is further behind has stalled."""
SPARE_FILES = 256
WARM = 16
"""Connections that are there before the first request."""
WARMING = 0.5
"""The share of the time before it that they may take."""
MOST_HEADS = 10_000

Tell = Callable[[dict[str, Any]], None]
"""Takes the counts so far (see `_Counts.told`), twice a second."""
Observe = Callable[[str, float, str], None]
"""Called with name, seconds from the intended start, and why there is no answer (empty where there is one)."""


class Station:
    """Sends the cargo as plans say. One plan at a time: it is accepted first, and then run."""

    def __init__(self, cargo: Cargo, observe: Observe | None = None) -> None:
        self._cargo = cargo
        self._observe = observe
        allow_files(MOST_OPEN + SPARE_FILES)
        self._connections = Connections(cargo.url, insecure=cargo.insecure)
        self._index_of = {
            family: _Labels((name, index) for index, name in enumerate(names)) for family, names in cargo.labels.items()
        }
        at = urlsplit(cargo.url)
        self._prefix = at.path.rstrip("/")
        common = {"host": at.netloc, "accept-encoding": "identity", **cargo.headers}
        self._common = oip.header_lines(common)
        self._tails = [oip.header_lines(one.headers) + oip.request_end(one.body) for one in cargo.messages]
        self._heads: dict[tuple[int, int, float], bytes] = {}
        self._loop: OpenLoop | None = None
        self._plan: Plan | None = None
        self._stopped = False

    def accept(self, plan: Plan) -> None:
        """Take a plan, of which nothing is sent yet. It can be stopped from now on."""
        self._plan, self._stopped = plan, False

    def stop(self) -> None:
        """Send no more of the plan that was accepted, also where it does not run yet; called from any greenlet."""
        self._stopped = True
        if self._loop is not None:
            self._loop.stop()

    def run(self, lead_s: float, tell: Tell) -> Part:
        """Send the plan that was accepted, its first moment in `lead_s`."""
        plan, self._plan = self._plan, None
        assert plan is not None, "a plan is accepted before it is run"
        if self._stopped:
            return unsent(len(plan))
        go_first()
        counts = _Counts()
        work = plan.workload
        way, tenant, slo_s = plan.way.tolist(), plan.tenant.tolist(), work.slo_s.tolist()
        sample, families = work.sample.tolist(), [entry.family for entry in self._cargo.ways]

        def send(index: int, due_s: float) -> tuple[Reply, float]:
            request = self._head(way[index], tenant[index], slo_s[index]) + self._tails[sample[index]]
            try:
                answer = self._connections.exchange(request)
            except NoSocketError:
                reply, latency_s = Reply(Fate.NOT_SENT, reason=NO_SOCKET), time.perf_counter() - due_s
            except NoAnswerError as error:
                reply, latency_s = Reply(Fate.FAILED, reason=str(error)), time.perf_counter() - due_s
            else:
                latency_s = answer.seen_s - due_s
                index_of = self._index_of[families[way[index]]]
                reply = oip.reply_of(answer.status, answer.headers, answer.body, index_of)
            counts.add(reply, in_time=is_in_time(reply.fate, latency_s, slo_s[index]))
            if self._observe is not None:
                self._observe(self._named(way[index], slo_s[index]), latency_s, reply.reason)
            return reply, latency_s

        loop = self._loop = OpenLoop(work, send, MOST_OPEN)
        began_s = time.perf_counter()
        self._connections.warm(WARM, lead_s * WARMING)
        self._connections.repeated = 0
        telling = gevent.spawn(_keep_telling, counts, loop, tell)
        rest_s = lead_s - (time.perf_counter() - began_s)
        started = time.time() + rest_s
        try:
            results, sending = loop.run(rest_s)
            due = np.arange(len(plan)) < loop.dispatched
            return Part(results, sending, due, started, self._connections.repeated)
        finally:
            self._loop = None
            telling.kill()

    def _named(self, way: int, slo_s: float) -> str:
        return f"{'/'.join(filter(None, self._cargo.ways[way]))} SLO {slo_s * 1e3:g} ms"

    def _head(self, way: int, tenant: int, slo_s: float) -> bytes:
        key = (way, tenant, slo_s)
        head = self._heads.get(key)
        if head is None:
            if len(self._heads) >= MOST_HEADS:
                self._heads.clear()
            own = {oip.SLO_HEADER: oip.slo_text(slo_s)}
            if tenant >= 0:
                own[oip.TENANT_HEADER] = self._cargo.tenants[tenant]
            path = self._prefix + self._cargo.ways[way].path
            head = self._heads[key] = oip.request_line(path) + self._common + oip.header_lines(own)
        return head


def unsent(count: int) -> Part:
    """What a generator hands in that was stopped before it began."""
    return Part(Results.pending(count), Sending(np.zeros(count), 0.0, 0), np.zeros(count, dtype=np.bool_), time.time())


class _Labels(dict[str, int]):
    """Labels by name. One that no row has is as good as any other wrong one: the rows may be a few of many."""

    def __missing__(self, name: str) -> int:
        return -1


class _Counts:
    """What has ended so far."""

    def __init__(self) -> None:
        self._fates: dict[str, int] = {}
        self._variants: dict[str, int] = {}
        self._in_time = 0
        self._lag_from = 0

    def add(self, reply: Reply, *, in_time: bool) -> None:
        self._fates[reply.fate] = self._fates.get(reply.fate, 0) + 1
        self._in_time += in_time
        if reply.fate is Fate.ANSWERED:
            self._variants[reply.variant] = self._variants.get(reply.variant, 0) + 1

    def told(self, loop: OpenLoop) -> dict[str, Any]:
        """Requests `due`, in time, by fate and by variant; the 99th percentile of lags since last asked."""
        lag_s, self._lag_from = loop.lag_s[self._lag_from : loop.dispatched], loop.dispatched
        return {
            "due": loop.dispatched,
            "in_time": self._in_time,
            "fates": dict(self._fates),
            "variants": dict(self._variants),
            "lag_s": float(np.percentile(lag_s, 99.0)) if len(lag_s) else 0.0,
        }


def _keep_telling(counts: _Counts, loop: OpenLoop, tell: Tell) -> None:
    while True:
        gevent.sleep(TELL_EVERY_S)
        tell(counts.told(loop))


def allow_files(count: int) -> None:
    """Have the system let this process open so many files, or as many as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        allowed = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
