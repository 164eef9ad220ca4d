"""The open-loop generator: requests leave when the workload says, whether or not earlier ones were answered.

A closed loop waits for its answers, so a stalled server stops the arrivals and its stalls go unmeasured (coordinated
omission). Here one greenlet dispatches, each request runs in a greenlet of its own, and latency counts from the
intended start. gevent's timers tick in milliseconds, so a thread keeps the time and wakes the dispatcher.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable

import gevent  # type: ignore[import-untyped]  # gevent carries no types
import numpy as np
from gevent import monkey
from gevent.event import Event  # type: ignore[import-untyped]  # gevent carries no types
from gevent.threadpool import ThreadPool  # type: ignore[import-untyped]  # gevent carries no types

from loadtests.generator_faults import Sending
from loadtests.outcomes import Reply, Results
from loadtests.traces import Seconds
from loadtests.workload import Workload

LEAD_S = 0.5
"""Between the call and the first intended start, for threads and connections to be there."""
SWITCH_INTERVAL_S = 0.0002
"""How long the timekeeper may wait for the interpreter; the default of 5 ms would be its lag."""
MOST_IN_FLIGHT = 1024
LEAST_SPAN_S = 0.1
"""A shorter run is held to be so long where its share of a core is told."""
LONGEST_NAP_S = 0.1
"""How soon the timekeeper notices that it is to end."""

_sleep: Callable[[float], None] = monkey.get_original("time", "sleep")


Send = Callable[[int, float], tuple[Reply, float]]
"""Send the request of that index of the workload, wait for its reply, and say how many seconds after the intended start
that was whole. Called in a greenlet of its own, with the index and the intended start on `time.perf_counter`."""


class OpenLoop:
    """One workload, sent once. While it runs, `lag_s` and `dispatched` may be looked at."""

    def __init__(self, workload: Workload, send: Send, most_in_flight: int = MOST_IN_FLIGHT) -> None:
        """A request that is due while `most_in_flight` are open is not sent: it counts as lost."""
        self._arrival_s = workload.arrival_s
        self._send = send
        self._most_in_flight = most_in_flight
        self._stopped = False
        self._timekeeper: _Timekeeper | None = None
        self._broken: Exception | None = None
        self._in_flight = 0
        self._highest = 0
        self.results = Results.pending(len(workload))
        self.lag_s = np.zeros(len(workload))
        self.dispatched = 0
        """Requests whose moment has come, from the first on."""

    def stop(self) -> None:
        """Send no more, and end when the open requests have an end; called from any greenlet."""
        self._stopped = True
        if self._timekeeper is not None:
            self._timekeeper.stop()

    def run(self, lead_s: float = LEAD_S) -> tuple[Results, Sending]:
        """Send the whole workload, beginning in `lead_s`, and wait for all replies.

        Of a run that was stopped, requests from number `dispatched` on are as if they had never been asked for.
        Whatever `send` raises ends the run and is raised here.
        """
        started_s = time.perf_counter() + lead_s
        intended_s = (started_s + self._arrival_s).tolist()
        open_requests: set[gevent.Greenlet] = set()
        switch_interval_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        gc.collect()
        gc.freeze()
        timekeeper = self._timekeeper = _Timekeeper(self._arrival_s + started_s)
        first_s = cpu_s = 0.0
        try:
            if self._stopped:
                timekeeper.stop()
            for index, due_s in enumerate(intended_s):
                timekeeper.wait_until(due_s)
                if self._stopped:
                    break
                if not index:
                    # The lead is idle: counted in, it would make a short run's full core look half empty.
                    first_s, cpu_s = time.perf_counter(), time.process_time()
                self.dispatched = index + 1
                if self._in_flight >= self._most_in_flight:
                    self.lag_s[index] = time.perf_counter() - due_s
                    continue
                self._in_flight += 1
                self._highest = max(self._highest, self._in_flight)
                request = gevent.spawn(self._carry, index, due_s)
                open_requests.add(request)
                request.rawlink(open_requests.discard)
            sending_s = max(time.perf_counter() - first_s, LEAST_SPAN_S)
            cpu_share = (time.process_time() - cpu_s) / sending_s if self.dispatched else 0.0
            gevent.joinall(list(open_requests))
        finally:
            gevent.killall(list(open_requests))
            timekeeper.close()
            sys.setswitchinterval(switch_interval_s)
            gc.unfreeze()
        if self._broken is not None:
            raise self._broken
        return self.results, Sending(self.lag_s, cpu_share, self._highest)

    def _carry(self, index: int, due_s: float) -> None:
        self.lag_s[index] = time.perf_counter() - due_s
        try:
            reply, latency_s = self._send(index, due_s)
        except Exception as error:  # noqa: BLE001 - raised again by `run`
            self._broken = error
            self.stop()
            return
        self._in_flight -= 1
        self.results.take(index, reply, latency_s)


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
        """Return at that moment of `time.perf_counter`, which must be one of the given ones, or at once if past.

        Also returns, before it, when stopped.
        """
        while time.perf_counter() < moment_s and not self._stopped:
            self._woken.clear()
            self._woken.wait()

    def stop(self) -> None:
        """Let who waits go on, and the thread end; called from any greenlet."""
        self._stopped = True
        self._woken.set()

    def close(self) -> None:
        """Wait for the thread's end and give everything back."""
        self.stop()
        self._threads.join()
        self._threads.kill()
        self._signal.stop()
        self._signal.close()

    def _keep_time(self, moments_s: list[float]) -> None:
        for moment_s in moments_s:
            while (rest_s := moment_s - time.perf_counter()) > 0.0:
                _sleep(min(rest_s, LONGEST_NAP_S))
                if self._stopped:
                    return
            self._signal.send()
