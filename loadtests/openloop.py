"""The open-loop generator: requests leave when the workload says, whether or not earlier ones were answered.

A closed loop waits for its answers, so a stalled server stops the arrivals and its stalls go unmeasured (coordinated
omission). Here one greenlet dispatches, each request runs in a greenlet of its own, and latency counts from the
intended start. gevent's timers tick in milliseconds, so a thread keeps the time and wakes the dispatcher.
"""

from __future__ import annotations

import gc
import math
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import gevent  # type: ignore[import-untyped]  # gevent carries no types
import numpy as np
from gevent import monkey
from gevent.event import Event  # type: ignore[import-untyped]  # gevent carries no types
from gevent.threadpool import ThreadPool  # type: ignore[import-untyped]  # gevent carries no types

from loadtests.scoring import Fate, Results, Sending
from loadtests.traces import Seconds
from loadtests.workload import Workload

LEAD_S = 0.5
"""Between the call and the first intended start, for threads and connections to be there."""
SWITCH_INTERVAL_S = 0.0002
"""How long the timekeeper may wait for the interpreter; the default of 5 ms would be its lag."""

_sleep: Callable[[float], None] = monkey.get_original("time", "sleep")


class Reply(NamedTuple):
    """What a sender got back: `label` is an index, -1 where there is none; `variant` is empty where none answered.

    `total_s` and `compute_s` are the server's own account, not-a-number where it gave none; `escalated` is whether
    several variants answered, one after the other.
    """

    fate: Fate
    label: int = -1
    variant: str = ""
    total_s: float = math.nan
    compute_s: float = math.nan
    escalated: bool = False


Send = Callable[[int], Reply]
"""Send the request of that index of the workload and wait for its reply; called in a greenlet of its own."""
Observe = Callable[[int, Reply, float], None]
"""Called with index, reply and seconds from the intended start whenever a request ended."""


def ignore(index: int, reply: Reply, latency_s: float) -> None:
    """Observe nothing."""


def run_open_loop(
    workload: Workload, send: Send, max_in_flight: int = 1024, observe: Observe = ignore
) -> tuple[Results, Sending]:
    """Send the whole workload and wait for all replies.

    A request that is due while `max_in_flight` are open is not sent: it counts as lost and makes the run invalid.
    """
    results = Results.pending(len(workload))
    lag_s = np.zeros(len(workload))
    in_flight = most_in_flight = 0
    started_s = time.perf_counter() + LEAD_S
    intended_s = (started_s + workload.arrival_s).tolist()

    def carry(index: int) -> None:
        nonlocal in_flight
        lag_s[index] = time.perf_counter() - intended_s[index]
        reply = send(index)
        latency_s = time.perf_counter() - intended_s[index]
        in_flight -= 1
        results.fate[index], results.label[index], results.variant[index] = reply[:3]
        results.total_s[index], results.compute_s[index], results.escalated[index] = reply[3:]
        if reply.fate is Fate.ANSWERED:
            results.latency_s[index] = latency_s
        observe(index, reply, latency_s)

    open_requests: set[gevent.Greenlet] = set()
    switch_interval_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()
    timekeeper = _Timekeeper(workload.arrival_s + started_s)
    cpu_s = time.process_time()
    try:
        for index, due_s in enumerate(intended_s):
            timekeeper.wait_until(due_s)
            if in_flight >= max_in_flight:
                lag_s[index] = time.perf_counter() - due_s
                continue
            in_flight += 1
            most_in_flight = max(most_in_flight, in_flight)
            request = gevent.spawn(carry, index)
            open_requests.add(request)
            request.rawlink(open_requests.discard)
        sending_s = time.perf_counter() - started_s + LEAD_S
        cpu_share = (time.process_time() - cpu_s) / sending_s
        gevent.joinall(list(open_requests), raise_error=True)
    finally:
        timekeeper.stop()
        gevent.killall(list(open_requests))
        sys.setswitchinterval(switch_interval_s)
        gc.unfreeze()
    return results, Sending(lag_s, cpu_share, most_in_flight)


class _Timekeeper:
    """A thread that sleeps until each moment in turn and then wakes the greenlet that waits, 0.1 ms late or so."""

    def __init__(self, moments_s: Seconds) -> None:
        self._woken = Event()
        self._stopped = False
        self._signal = gevent.get_hub().loop.async_()
        self._signal.start(self._woken.set)
        self._threads = ThreadPool(1)
        self._threads.spawn(self._keep_time, np.unique(moments_s).tolist())

    def wait_until(self, moment_s: float) -> None:
        """Return at that moment of `time.perf_counter`, which must be one of the given ones, or at once if past."""
        while time.perf_counter() < moment_s:
            self._woken.clear()
            self._woken.wait()

    def stop(self) -> None:
        """Let the thread end."""
        self._stopped = True
        self._signal.stop()
        self._signal.close()

    def _keep_time(self, moments_s: list[float]) -> None:
        for moment_s in moments_s:
            while (rest_s := moment_s - time.perf_counter()) > 0.0:
                _sleep(min(rest_s, 1.0))
                if self._stopped:
                    return
            self._signal.send()
