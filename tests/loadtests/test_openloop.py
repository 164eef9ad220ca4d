"""The open loop: arrivals do not wait for answers, and what is not sent is told."""

from __future__ import annotations

import numpy as np
import pytest
from gevent.event import Event  # type: ignore[import-untyped]  # gevent carries no types

from loadtests.openloop import Reply, run_open_loop
from loadtests.scoring import Fate
from loadtests.workload import Workload


def workload(count: int) -> Workload:
    return Workload(np.linspace(0.0, 0.05, count), np.full(count, 1.0), np.zeros(count, dtype=np.int64))


def test_requests_leave_while_none_is_answered() -> None:
    """No answer comes before the last request is out, and yet all are sent."""
    everything_out = Event()

    def send(index: int) -> Reply:
        if index == 19:
            everything_out.set()
        everything_out.wait()
        return Reply(Fate.ANSWERED, index, "large", 0.25, 0.125)

    results, sending = run_open_loop(workload(20), send)
    assert [Fate.ANSWERED] * 20 == results.fate.tolist()
    assert list(range(20)) == results.label.tolist()
    assert (["large"] * 20, [0.25] * 20) == (results.variant.tolist(), results.total_s.tolist())
    assert 20 == sending.most_in_flight


def test_latency_counts_from_the_intended_start() -> None:
    """The first request's answer waits for the last arrival, and its latency says so."""
    last_is_out = Event()

    def send(index: int) -> Reply:
        if index == 1:
            last_is_out.set()
        last_is_out.wait()
        return Reply(Fate.ANSWERED)

    results, _ = run_open_loop(workload(2), send)
    assert results.latency_s[0] >= 0.05


def test_requests_beyond_the_bound_are_not_sent_and_counted() -> None:
    """While three are open, the rest is lost instead of piling up."""
    all_due = Event()
    sent: list[int] = []

    def send(index: int) -> Reply:
        sent.append(index)
        if index == 9:
            all_due.set()
        all_due.wait(0.2)
        return Reply(Fate.ANSWERED)

    results, sending = run_open_loop(workload(10), send, max_in_flight=3)
    assert [0, 1, 2] == sent
    assert [Fate.NOT_SENT] * 7 == results.fate.tolist()[3:]
    assert 3 == sending.most_in_flight


def test_what_goes_wrong_in_sending_is_not_swallowed() -> None:
    """A bug in a sender ends the run with its exception."""

    def send(index: int) -> Reply:
        raise LookupError("a bug")

    with pytest.raises(LookupError, match="a bug"):
        run_open_loop(workload(1), send)


def test_every_end_is_observed_once() -> None:
    """Observers see each request that was sent."""
    seen: list[int] = []
    run_open_loop(workload(5), lambda index: Reply(Fate.REFUSED), observe=lambda index, reply, s: seen.append(index))
    assert [0, 1, 2, 3, 4] == sorted(seen)
