"""Several generators for one plan: what locust's master asks of its workers, and how a worker answers.

Messages are locust's own kind for such use. A plan is dealt out request by request, so that the sum of what workers
send is the wanted process, whatever that is; results come back request by request, so that merging them loses nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from gevent.event import Event  # type: ignore[import-untyped]  # gevent carries no types
from locust.rpc.protocol import Message
from locust.runners import STATE_MISSING, MasterRunner, WorkerRunner

from loadtests.harness.cargo import Cargo, Plan, share
from loadtests.harness.part import Part, merged
from loadtests.harness.station import TELL_EVERY_S, Observe, Station, Tell
from loadtests.harness.user import DESK

CARGO, PLAN, GO, STOP = "pareto_cargo", "pareto_plan", "pareto_go", "pareto_stop"
READY, COUNTS, PART = "pareto_ready", "pareto_counts", "pareto_part"
LEAD_S = 1.0
READY_LIMIT_S = 120.0
"""Until all workers have their share: it may be hundreds of megabytes over a network."""


class Generated(NamedTuple):
    """A run as a whole, and how each generator fared: see `fared`."""

    part: Part
    generators: list[dict[str, Any]]


def fared(part: Part) -> dict[str, Any]:
    """How one generator fared: requests, 99th percentile of its lags, share of a core, when it began."""
    lag_s = part.sending.lag_s[part.due]
    return {
        "requests": int(part.due.sum()),
        "lag_p99_s": float(np.percentile(lag_s, 99.0)) if len(lag_s) else 0.0,
        "cpu_share": part.sending.cpu_share,
        "started": part.started,
    }


class Workers:
    """The master's side."""

    def __init__(self, runner: MasterRunner, cargo: Cargo, *, observed: bool) -> None:
        self._runner = runner
        self._cargo = {"cargo": cargo.pack(), "observed": observed}
        self._loaded: set[str] = set()
        self._ready: set[str] = set()
        self._counts: dict[str, dict[str, Any]] = {}
        self._parts: dict[str, Part] = {}
        self._changed = Event()
        for kind, listener in ((READY, self._on_ready), (COUNTS, self._on_counts), (PART, self._on_part)):
            runner.register_message(kind, listener)

    @property
    def count(self) -> int:
        """Workers that are there."""
        return self._runner.worker_count

    def run(self, plan: Plan, tell: Tell) -> Generated:
        """Have all workers that are there send the plan together.

        The share of one that is lost on the way stays unsent.
        """
        clients = self._there()[: len(plan)]
        self._ready.clear()
        self._counts.clear()
        self._parts.clear()
        for number, client in enumerate(clients):
            if client not in self._loaded:
                self._runner.send_message(CARGO, self._cargo, client)
                self._loaded.add(client)
            self._runner.send_message(PLAN, plan.of(share(len(clients), number)).pack(), client)
        self._wait(lambda: self._ready.issuperset(self._lasting(clients)), lambda: None, READY_LIMIT_S)
        for client in clients:
            self._runner.send_message(GO, {"lead_s": LEAD_S}, client)
        self._wait(lambda: self._parts.keys() >= self._lasting(clients), lambda: tell(self._summed()))
        parts = [self._parts.get(client) for client in clients]
        return Generated(merged(parts, len(plan)), [fared(part) for part in parts if part is not None])

    def stop(self) -> None:
        """Send no more of the plan that runs."""
        self._runner.send_message(STOP)

    def _there(self) -> list[str]:
        clients = self._runner.clients
        there = [client for client in clients.all if client.state != STATE_MISSING]
        return sorted((client.id for client in there), key=self._runner.get_worker_index)

    def _lasting(self, clients: list[str]) -> set[str]:
        """Those of them that are still there, or have handed in."""
        return {*self._there(), *self._parts} & set(clients)

    def _wait(self, done: Callable[[], bool], meanwhile: Callable[[], None], limit_s: float | None = None) -> None:
        until_s = None if limit_s is None else time.monotonic() + limit_s
        while not done() and (until_s is None or time.monotonic() < until_s):
            self._changed.clear()
            self._changed.wait(TELL_EVERY_S)
            meanwhile()

    def _summed(self) -> dict[str, Any]:
        told = list(self._counts.values())
        sums: dict[str, Any] = {name: sum(counts[name] for counts in told) for name in ("due", "in_time")}
        for name in ("fates", "variants"):
            total: Counter[str] = Counter()
            for counts in told:
                total.update(counts[name])
            sums[name] = dict(total)
        return {**sums, "lag_s": max((counts["lag_s"] for counts in told), default=0.0)}

    def _on_ready(self, msg: Message, **_: Any) -> None:
        self._ready.add(msg.node_id)
        self._changed.set()

    def _on_counts(self, msg: Message, **_: Any) -> None:
        self._counts[msg.node_id] = msg.data

    def _on_part(self, msg: Message, **_: Any) -> None:
        self._parts[msg.node_id] = Part.unpack(msg.data)
        self._changed.set()


class Worker:
    """A worker's side."""

    def __init__(self, runner: WorkerRunner, observe: Observe) -> None:
        self._runner = runner
        self._observe = observe
        self._station: Station | None = None
        self._plan: Plan | None = None
        for kind, listener in ((CARGO, self._load), (PLAN, self._take), (GO, self._go), (STOP, self._stop)):
            runner.register_message(kind, listener)

    def _load(self, msg: Message, **_: Any) -> None:
        observe = self._observe if msg.data["observed"] else None
        self._station = Station(Cargo.unpack(msg.data["cargo"]), observe)

    def _take(self, msg: Message, **_: Any) -> None:
        self._plan = Plan.unpack(msg.data)
        self._runner.send_message(READY)

    def _go(self, msg: Message, **_: Any) -> None:
        lead_s, station, plan = msg.data["lead_s"], self._station, self._plan
        assert station is not None, "the master sends the cargo first"
        assert plan is not None, "and the plan"

        def job() -> None:
            part = station.run(plan, lead_s, lambda counts: self._runner.send_message(COUNTS, counts))
            self._runner.send_message(PART, part.pack())

        DESK.put(job)

    def _stop(self, **_: Any) -> None:
        if self._station is not None:
            self._station.stop()
