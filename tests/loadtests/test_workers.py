"""Generators, alone and together: plans are stopped in time, runs are kept apart, and nobody waits for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import gevent  # type: ignore[import-untyped]  # gevent carries no types
import numpy as np
import pytest

from loadtests.generator_faults import Sending, generator_faults
from loadtests.harness import station, workers
from loadtests.harness.cargo import Cargo, Message, Plan, Way
from loadtests.harness.part import merged
from loadtests.harness.station import Station, unsent
from loadtests.harness.workers import Worker, Workers, WorkersError
from loadtests.outcomes import Fate, Results
from loadtests.workload import Workload
from tests.loadtests.scripted import ANSWER, Scripted, scripted

COUNT = 4


def plan(count: int = COUNT, last_s: float = 0.02) -> Plan:
    work = Workload(np.linspace(0.0, last_s, count), np.full(count, 1.0), np.zeros(count, np.int64))
    return Plan(work, np.zeros(count, np.int64), np.full(count, -1, np.int64))


def cargo(url: str) -> Cargo:
    return Cargo(url, (Way("f"),), (Message({}, b""),), {"f": ("yes",)})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    """Answers each connection's requests; nothing is warmed and no priority is asked for."""
    monkeypatch.setattr(station, "WARM", 0)
    monkeypatch.setattr(station, "go_first", lambda: None)
    monkeypatch.setattr(workers, "LEAD_S", 0.02)
    with scripted(*([ANSWER] * 50 for _ in range(10))) as running:
        yield running


@dataclass
class Line:
    """Stands for locust's master and workers: messages reach the other side at once, or are kept where it is asked."""

    clients: Any = field(default_factory=lambda: SimpleNamespace(all=[], missing=[]))
    heard: dict[str, dict[str, Callable[..., None]]] = field(default_factory=dict)
    deaf: set[str] = field(default_factory=set)
    """Kinds of messages that do not arrive."""
    ahead: dict[str, Callable[[], None]] = field(default_factory=dict)
    """What happens just before the first message of a kind arrives."""

    def get_worker_index(self, client: str) -> int:
        return int(client)

    def register_message(self, kind: str, listener: Callable[..., None]) -> None:
        self.heard.setdefault("master", {})[kind] = listener

    def send_message(self, kind: str, data: Any = None, client: str | None = None) -> None:
        for node in [client] if client else [node for node in self.heard if node != "master"]:
            self.deliver(node, kind, data, "master")

    def deliver(self, to: str, kind: str, data: Any, by: str) -> None:
        self.ahead.pop(kind, lambda: None)()
        if kind not in self.deaf:
            self.heard[to][kind](msg=SimpleNamespace(data=data, node_id=by))

    def join(self) -> Worker:
        name = str(len(self.clients.all))
        self.clients.all.append(SimpleNamespace(id=name))
        end = SimpleNamespace(
            register_message=self.heard.setdefault(name, {}).__setitem__,
            send_message=lambda kind, data=None: self.deliver("master", kind, data, name),
        )
        return Worker(end, lambda *_: None)  # type: ignore[arg-type]  # what it needs of a runner


def together(server: Scripted, count: int, limit_s: float = 10.0) -> tuple[Line, Workers]:
    line = Line()
    master = Workers(line, cargo(server.url), observed=False, limit_s=limit_s)  # type: ignore[arg-type]  # all it needs
    for _ in range(count):
        line.join()
    return line, master


def test_a_plan_that_was_stopped_before_it_runs_is_not_sent(server: Scripted) -> None:
    """The stop is forgotten only when the next plan is accepted."""
    one = Station(cargo(server.url))
    one.accept(plan())
    one.stop()
    assert not one.run(0.02, lambda counts: None).due.any()
    one.accept(plan())
    assert one.run(0.02, lambda counts: None).due.all()
    assert COUNT == len(server.requests)


@pytest.mark.parametrize("moment", [workers.CARGO, workers.PLAN, workers.READY, workers.GO])
def test_workers_stop_until_the_last_moment(server: Scripted, moment: str) -> None:
    """Whatever the master was about to say or to hear when somebody stopped it: nothing is sent."""
    line, master = together(server, 2)
    line.ahead[moment] = master.stop
    master.accept(plan())
    assert not master.run(lambda counts: None).part.due.any()
    assert [] == server.requests


def test_a_worker_that_joins_later_sends_its_share(server: Scripted) -> None:
    """The next plan is dealt out to all that are there."""
    line, master = together(server, 1)
    master.accept(plan())
    assert [COUNT] == [one["requests"] for one in master.run(lambda counts: None).generators]
    line.join()
    master.accept(plan())
    assert [2, 2] == [one["requests"] for one in master.run(lambda counts: None).generators]
    assert 2 * COUNT == len(server.requests)


@pytest.mark.parametrize(
    ("deaf", "says"),
    [
        (workers.READY, "2 of 2 workers are not ready"),
        (workers.PART, "2 of 2 workers are not done"),
        (workers.CARGO, "worker 0 failed: no cargo has come"),
    ],
)
def test_nobody_waits_for_ever(server: Scripted, monkeypatch: pytest.MonkeyPatch, deaf: str, says: str) -> None:
    """Workers that are not ready, do not hand in, or fail end the run with what is the matter."""
    monkeypatch.setattr(workers, "LAST_ANSWER_S", 0.0)
    line, master = together(server, 2, limit_s=0.1)
    line.deaf.add(deaf)
    master.accept(plan())
    with pytest.raises(WorkersError, match=says):
        master.run(lambda counts: None)


def test_a_worker_that_cannot_load_says_why(server: Scripted) -> None:
    """Also where it fails before there is a plan."""
    line, _ = together(server, 1)
    broken = Workers(line, cargo("http://[broken"), observed=False)  # type: ignore[arg-type]  # all it needs
    broken.accept(plan())
    with pytest.raises(WorkersError, match="worker 0 failed: ValueError: Invalid IPv6 URL"):
        broken.run(lambda counts: None)


def test_without_workers_there_is_no_run(server: Scripted) -> None:
    """Rather than a run without requests."""
    _, master = together(server, 0)
    master.accept(plan())
    with pytest.raises(WorkersError, match="there is no worker"):
        master.run(lambda counts: None)


def test_what_comes_late_of_one_run_is_no_part_of_the_next(server: Scripted) -> None:
    """Messages carry the number of their run."""
    line, master = together(server, 1)
    master.accept(plan())
    master.run(lambda counts: None)
    late = {"run": 1, "part": unsent(2).pack()}
    line.deaf.add(workers.GO)
    gevent.spawn(line.deliver, "master", workers.PART, late, "0")
    master.accept(plan(2))

    def go() -> None:
        line.deaf.clear()
        line.deliver("0", workers.GO, {"run": 2, "lead_s": 0.02}, "master")

    gevent.spawn_later(0.05, go)
    assert master.run(lambda counts: None).part.due.all()


def test_generators_that_begin_apart_are_no_measurement() -> None:
    """What they sent together was not the wanted process."""

    def sent(started: float) -> Any:
        return unsent(2)._replace(due=np.ones(2, dtype=np.bool_), started=started)

    whole = merged([sent(100.0), sent(100.2)], 4)
    assert pytest.approx(0.2) == whole.sending.apart_s
    assert ["generators began 200 ms apart, at most 50 ms is allowed"] == generator_faults(whole.results, whole.sending)
    assert [] == generator_faults(whole.results, merged([sent(100.0), sent(100.04)], 4).sending)


def test_a_generator_without_sockets_is_at_fault(monkeypatch: pytest.MonkeyPatch, server: Scripted) -> None:
    """Its requests were not sent, and the run says why; they are not held against the gateway."""
    import errno
    import socket

    def full(*_: object) -> None:
        raise OSError(errno.EMFILE, "scripted")

    one = Station(cargo(server.url))
    monkeypatch.setattr(socket.socket, "connect", full)
    one.accept(plan())
    part = one.run(0.02, lambda counts: None)
    assert {Fate.NOT_SENT} == set(part.results.fate)
    punctual = Sending(np.zeros(COUNT), 0.0, 1)
    assert ["the generator's machine had no socket (files, ports) for 4 requests"] == generator_faults(
        part.results, punctual
    )
    assert [] == generator_faults(Results.pending(1), punctual)
