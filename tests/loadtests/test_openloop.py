"""The open loop: arrivals do not wait for answers, and what is not sent is told."""

from __future__ import annotations

import gevent  # type: ignore[import-untyped]  # gevent carries no types
import numpy as np
import pytest
from gevent.event import Event  # type: ignore[import-untyped]  # gevent carries no types

from loadtests.openloop import OpenLoop, Send
from loadtests.outcomes import Fate, Reply
from loadtests.workload import Workload


def workload(count: int, span_s: float = 0.05) -> Workload:
    return Workload(np.linspace(0.0, span_s, count), np.full(count, 1.0), np.zeros(count, dtype=np.int64))


def answering(wait: Event) -> Send:
    def send(index: int, due_s: float) -> tuple[Reply, float]:
        wait.wait()
        return Reply(Fate.ANSWERED, index, "large", 0.25, 0.125), 0.5

    return send


def test_requests_leave_while_none_is_answered() -> None:
    """No answer comes before the last request is out, and yet all are sent."""
    everything_out = Event()
    answer = answering(everything_out)

    def send(index: int, due_s: float) -> tuple[Reply, float]:
        if index == 19:
            everything_out.set()
        return answer(index, due_s)

    results, sending = OpenLoop(workload(20), send).run()
    assert [Fate.ANSWERED] * 20 == results.fate.tolist()
    assert list(range(20)) == results.label.tolist()
    assert (["large"] * 20, [0.25] * 20) == (results.variant.tolist(), results.total_s.tolist())
    assert ([0.5] * 20, 20) == (results.latency_s.tolist(), sending.most_in_flight)


def test_intended_starts_are_those_of_the_workload() -> None:
    """Whoever sends is told when the request should have left, whenever it does."""
    told: list[float] = []

    def send(index: int, due_s: float) -> tuple[Reply, float]:
        told.append(due_s)
        return Reply(Fate.ANSWERED), 0.0

    OpenLoop(workload(3), send).run()
    assert pytest.approx([0.0, 0.025, 0.05]) == [due_s - told[0] for due_s in told]


def test_requests_beyond_the_bound_are_not_sent_and_counted() -> None:
    """While three are open, the rest is lost instead of piling up."""
    all_due = Event()
    loop = OpenLoop(workload(10), answering(all_due), most_in_flight=3)

    def answer_in_the_end() -> None:
        while loop.dispatched < 10:
            gevent.sleep(0.005)
        all_due.set()

    gevent.spawn(answer_in_the_end)
    results, sending = loop.run()
    assert [Fate.ANSWERED] * 3 + [Fate.NOT_SENT] * 7 == results.fate.tolist()
    assert 3 == sending.most_in_flight


def test_what_goes_wrong_in_sending_is_not_swallowed() -> None:
    """A bug in a sender ends the run with its exception, also where others are still due."""

    def send(index: int, due_s: float) -> tuple[Reply, float]:
        raise LookupError("a bug")

    with pytest.raises(LookupError, match="a bug"):
        OpenLoop(workload(3, span_s=60.0), send).run()


def test_a_stopped_run_ends_with_what_there_is() -> None:
    """Nothing more is sent, what is open gets its answer, and how far it came is known."""
    loop: OpenLoop

    def send(index: int, due_s: float) -> tuple[Reply, float]:
        if index == 1:
            loop.stop()
        return Reply(Fate.ANSWERED), 0.0

    loop = OpenLoop(Workload(np.array([0.0, 0.01, 600.0]), np.ones(3), np.zeros(3, np.int64)), send)
    results, _ = loop.run()
    assert (2, [Fate.ANSWERED, Fate.ANSWERED, Fate.NOT_SENT]) == (loop.dispatched, results.fate.tolist())


def test_the_idle_lead_does_not_dilute_a_full_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """The share of a core is that of the time in which requests leave."""
    burnt = iter([7.0, 7.95])
    monkeypatch.setattr("loadtests.openloop.time.process_time", lambda: next(burnt))
    monkeypatch.setattr("loadtests.openloop.LEAST_SPAN_S", 1.0)
    _, sending = OpenLoop(workload(3), lambda index, due_s: (Reply(Fate.ANSWERED), 0.0)).run(0.1)
    assert pytest.approx(0.95) == sending.cpu_share
