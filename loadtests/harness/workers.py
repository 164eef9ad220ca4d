"""Several generators for one plan: what locust's master asks of its workers, and how a worker answers.

Messages are locust's own kind for such use. A plan is dealt out request by request, so that the sum of what workers
send is the wanted process, whatever that is; results come back request by request, so that merging them loses nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import gevent  # type: ignore[import-untyped]  # gevent carries no types
import numpy as np
from gevent.event import Event  # type: ignore[import-untyped]  # gevent carries no types

from loadtests.harness.cargo import Cargo, Plan, share
from loadtests.harness.connections import CONNECT_TIMEOUT_S, PATIENCE_S
from loadtests.harness.part import Part, merged
from loadtests.harness.station import TELL_EVERY_S, Observe, Station, Tell, unsent

if TYPE_CHECKING:
    # Not at run time: locust makes the sockets of whoever imports it cooperative.
    from locust.rpc.protocol import Message
    from locust.runners import MasterRunner, WorkerRunner

CARGO, PLAN, GO, STOP = "pareto_cargo", "pareto_plan", "pareto_go", "pareto_stop"
READY, COUNTS, PART, FAILED = "pareto_ready", "pareto_counts", "pareto_part", "pareto_failed"
LEAD_S = 1.0
READY_LIMIT_S = 120.0
"""Until all workers have their share, and again until all have handed in: it may be hundreds of megabytes."""
LAST_ANSWER_S = CONNECT_TIMEOUT_S + PATIENCE_S
"""After the last request left, the latest that what became of it is known."""


class WorkersError(Exception):
    """Workers do not do their part. The message is one line."""


class Generated(NamedTuple):
    """A run as a whole, and how each generator fared: see `fared`."""

    part: Part
    generators: list[dict[str, Any]]


def fared(part: Part) -> dict[str, Any]:
    """How one generator fared: requests, 99th percentile of its lags, share of a core, when it began, sent again."""
    lag_s = part.sending.lag_s[part.due]
    return {
        "requests": int(part.due.sum()),
        "lag_p99_s": float(np.percentile(lag_s, 99.0)) if len(lag_s) else 0.0,
        "cpu_share": part.sending.cpu_share,
        "started": part.started,
        "repeated": part.repeated,
    }


class Workers:
    """The master's side. Runs are numbered: what comes late of one is no part of the next."""

    def __init__(self, runner: MasterRunner, cargo: Cargo, *, observed: bool, limit_s: float = READY_LIMIT_S) -> None:
        self._runner = runner
        self._cargo = {"cargo": cargo.pack(), "observed": observed}
        self._limit_s = limit_s
        self._loaded: set[str] = set()
        self._run = 0
        self._plan: Plan | None = None
        self._stopped = False
        self._ready: set[str] = set()
        self._counts: dict[str, dict[str, Any]] = {}
        self._parts: dict[str, Part] = {}
        self._failed: dict[str, str] = {}
        self._changed = Event()
        listeners = ((READY, self._on_ready), (COUNTS, self._on_counts), (PART, self._on_part))
        for kind, listener in (*listeners, (FAILED, self._on_failed)):
            runner.register_message(kind, listener)

    @property
    def count(self) -> int:
        """Workers that are there."""
        return len(self._there())

    def accept(self, plan: Plan) -> None:
        """Take a plan, of which nothing is sent yet. It can be stopped from now on."""
        self._plan, self._stopped = plan, False

    def run(self, tell: Tell) -> Generated:
        """Have all workers that are there send the plan that was accepted, together.

        The share of one that is lost on the way stays unsent. Raises `WorkersError` where there is no worker, where one
        fails, and where one is not ready or does not hand in within its time.
        """
        plan, self._plan = self._plan, None
        assert plan is not None, "a plan is accepted before it is run"
        clients = self._there()[: len(plan)]
        if not clients:
            raise WorkersError("there is no worker")
        self._run += 1
        for known in (self._ready, self._counts, self._parts, self._failed):
            known.clear()
        for number, client in enumerate(clients):
            if client not in self._loaded:
                self._runner.send_message(CARGO, self._cargo, client)
                self._loaded.add(client)
            own = {"run": self._run, "plan": plan.of(share(len(clients), number)).pack()}
            self._runner.send_message(PLAN, own, client)
        self._wait(clients, self._ready, "ready", self._limit_s)
        if self._stopped:
            return Generated(unsent(len(plan)), [])
        for client in clients:
            self._runner.send_message(GO, {"run": self._run, "lead_s": LEAD_S}, client)
        within_s = LEAD_S + plan.workload.duration_s + LAST_ANSWER_S + self._limit_s
        self._wait(clients, self._parts, "done", within_s, lambda: tell(self._summed()))
        parts = [self._parts.get(client) for client in clients]
        return Generated(merged(parts, len(plan)), [fared(part) for part in parts if part is not None])

    def stop(self) -> None:
        """Send no more of the plan that was accepted, also where it does not run yet."""
        self._stopped = True
        self._changed.set()
        self._runner.send_message(STOP)

    def _there(self) -> list[str]:
        clients = self._runner.clients
        missing = {client.id for client in clients.missing}
        there = (client.id for client in clients.all if client.id not in missing)
        return sorted(there, key=self._runner.get_worker_index)

    def _wait(
        self,
        clients: list[str],
        told: set[str] | dict[str, Part],
        what: str,
        limit_s: float,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """Until all of them that are still there have told. Raises `WorkersError`.

        Who is told to stop before anything is sent does not wait.
        """
        until_s = time.monotonic() + limit_s
        while owing := (set(self._there()) & set(clients)) - set(told):
            if self._failed:
                client, why = next(iter(self._failed.items()))
                raise WorkersError(f"worker {client} failed: {why}")
            if self._stopped and what == "ready":
                return
            if time.monotonic() > until_s:
                raise WorkersError(f"after {limit_s:.0f} s {len(owing)} of {len(clients)} workers are not {what}")
            self._changed.clear()
            self._changed.wait(min(TELL_EVERY_S, limit_s))
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

    def _is_now(self, msg: Message) -> bool:
        return bool(msg.data["run"] == self._run)

    def _on_ready(self, msg: Message, **_: Any) -> None:
        if self._is_now(msg):
            self._ready.add(msg.node_id)
            self._changed.set()

    def _on_counts(self, msg: Message, **_: Any) -> None:
        if self._is_now(msg):
            self._counts[msg.node_id] = msg.data["counts"]

    def _on_part(self, msg: Message, **_: Any) -> None:
        if self._is_now(msg):
            self._parts[msg.node_id] = Part.unpack(msg.data["part"])
            self._changed.set()

    def _on_failed(self, msg: Message, **_: Any) -> None:
        if self._is_now(msg):
            self._failed[msg.node_id] = msg.data["why"]
            self._changed.set()


class Worker:
    """A worker's side."""

    def __init__(self, runner: WorkerRunner, observe: Observe) -> None:
        self._runner = runner
        self._observe = observe
        self._station: Station | None = None
        self._run = 0
        self._trouble = "no cargo has come"
        for kind, listener in ((CARGO, self._load), (PLAN, self._take), (GO, self._go), (STOP, self._stop)):
            runner.register_message(kind, listener)

    def _load(self, msg: Message, **_: Any) -> None:
        observe = self._observe if msg.data["observed"] else None
        try:
            self._station = Station(Cargo.unpack(msg.data["cargo"]), observe)
        except Exception as error:  # noqa: BLE001 - told to the master when it sends a plan
            self._trouble = _said(error)

    def _take(self, msg: Message, **_: Any) -> None:
        self._run = msg.data["run"]
        try:
            self._loaded_station().accept(Plan.unpack(msg.data["plan"]))
        except Exception as error:  # noqa: BLE001 - told to the master, who ends the run
            self._say(FAILED, self._run, why=_said(error))
        else:
            self._say(READY, self._run)

    def _go(self, msg: Message, **_: Any) -> None:
        if msg.data["run"] == self._run:
            # Messages go on being heard meanwhile: one may say stop.
            gevent.spawn(self._send, self._run, msg.data["lead_s"])

    def _send(self, run: int, lead_s: float) -> None:
        try:
            part = self._loaded_station().run(lead_s, lambda counts: self._say(COUNTS, run, counts=counts))
            self._say(PART, run, part=part.pack())
        except Exception as error:  # noqa: BLE001 - told to the master, who ends the run
            self._say(FAILED, run, why=_said(error))

    def _stop(self, **_: Any) -> None:
        if self._station is not None:
            self._station.stop()

    def _loaded_station(self) -> Station:
        if self._station is None:
            raise WorkersError(self._trouble)
        return self._station

    def _say(self, kind: str, run: int, **values: Any) -> None:
        self._runner.send_message(kind, {"run": run, **values})


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, WorkersError) else f"{type(error).__name__}: {error}"
