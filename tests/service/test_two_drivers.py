"""One scheduler, two drivers: the asyncio dispatcher and the simulator decide alike, batch for batch."""

from __future__ import annotations

import asyncio
import heapq
import math
import selectors
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from loadtests.simulator import Machine, simulate
from loadtests.traces import Shape, arrivals
from loadtests.workload import SloMix, Workload
from router.contract import BatchRecord, Dispatch, Record, Request, Slot
from router.latency import LatencyModel
from router.policies import policy_named
from router.scheduler import Scheduler
from service.dispatcher import Dispatcher
from service.runner import BatchRunner, Done
from tests.scripted import FAMILY, SAMPLES
from variants.preparation import Answers, Row

SLOWDOWN = 1.3
"""The machine is slower than its profile, so that learning is part of what has to agree."""


class ManualTime(asyncio.SelectorEventLoop):
    """An event loop that never waits: where it would sleep, its clock jumps to the next timer."""

    def __init__(self) -> None:
        self.now_s = 0.0
        super().__init__(selectors.SelectSelector())
        selector = self._selector  # type: ignore[attr-defined]  # the one place where the loop waits
        poll: Callable[[float | None], Any] = selector.select

        def jump(timeout: float | None) -> Any:
            if timeout is not None and timeout > 0.0:
                self.now_s = self._scheduled[0].when()  # type: ignore[attr-defined]  # its heap of timers
                # Timers that are not quite due together are not to be run together.
                self._clock_resolution = math.ulp(self.now_s)
            return poll(0)

        selector.select = jump

    def time(self) -> float:
        """Virtual seconds."""
        return self.now_s


class Script:
    """A slot whose batches take what the profile says, times the slowdown, and whose answers are all `negative`."""

    def __init__(self, loop: ManualTime, done: Done, running: list[tuple[float, int, Dispatch]]) -> None:
        self._loop, self._done, self._running, self._profile = loop, done, running, LatencyModel(FAMILY)

    def start(self, dispatch: Dispatch, rows: Sequence[Row]) -> None:
        """Be done after the scripted time."""
        variant = FAMILY.index(dispatch.variant)
        assert variant is not None
        seconds = self._profile.median_s(variant, len(rows), dispatch.items[0].size_class) * SLOWDOWN
        end_s = self._loop.now_s + seconds
        heapq.heappush(self._running, (end_s, dispatch.batch_id, dispatch))
        self._loop.call_at(end_s, self._finish)

    def _finish(self) -> None:
        """Of batches that end together the older one is first: the loop's heap of timers keeps no order of them."""
        _, _, dispatch = heapq.heappop(self._running)
        rows = len(dispatch.items)
        answers = Answers(np.zeros(rows, np.int64), np.full((rows, 2), 0.5, np.float32), np.full(rows, 0.5, np.float32))
        self._done(dispatch.batch_id, answers, self._loop.now_s - dispatch.started_s)

    def stop(self) -> None:
        """Nothing to end."""


class Log:
    """Keeps what observers are told."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.dispatches: list[Dispatch] = []

    def observe(self, records: Sequence[Record], batches: Sequence[BatchRecord]) -> None:
        """Keep it."""
        self.records += records
        self.dispatches += [batch.dispatch for batch in batches]


def live(workload: Workload, policy: str, slots: int) -> Log:
    """The workload through the asyncio dispatcher, on manual time, with scripted slots."""
    loop, log = ManualTime(), Log()

    async def serve() -> None:
        running: list[tuple[float, int, Dispatch]] = []
        scheduler = Scheduler([FAMILY], [Slot(index) for index in range(slots)], policy_named(policy))
        dispatcher = Dispatcher(
            scheduler,
            BatchRunner({}),
            lambda done: [Script(loop, done, running) for _ in range(slots)],
            [log],
            clock=loop.time,
            timer_step_s=0.0,
        )
        row = np.zeros((1, 4), np.float32)
        answers = []
        all_submitted = asyncio.Event()
        rows = zip(workload.arrival_s.tolist(), workload.slo_s.tolist(), workload.sample.tolist(), strict=True)
        requests = [
            Request(index, FAMILY.name, (int(SAMPLES.size_class[sample]),), arrival_s, arrival_s + slo_s)
            for index, (arrival_s, slo_s, sample) in enumerate(rows)
        ]

        def arrive(index: int) -> None:
            """One timer at a time: the heap of timers does not keep the order of those that are due together."""
            answers.append(dispatcher.submit(requests[index], [row]))
            if index + 1 < len(requests):
                loop.call_at(requests[index + 1].arrival_s, arrive, index + 1)
            else:
                all_submitted.set()

        loop.call_at(requests[0].arrival_s, arrive, 0)
        await all_submitted.wait()
        await asyncio.gather(*answers)

    loop.run_until_complete(serve())
    loop.close()
    return log


def rounded(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Times to the nanosecond: a timer set for `wake_at - now` from now is off by the last bit."""
    return [tuple(round(value, 9) if isinstance(value, float) else value for value in row) for row in rows]


@pytest.mark.parametrize("policy", ["slack-fraction", "fastest", "most-accurate"])
@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("rate", [60.0, 400.0, 2000.0])
def test_live_dispatcher_and_simulator_decide_alike(policy: str, slots: int, rate: float) -> None:
    """Same workload, same service times: the same batches at the same moments, the same record for every request."""
    rng = np.random.default_rng(5)
    workload = Workload.draw(
        arrivals("gamma", rate, 1.5, Shape(cv2=4.0), rng), SloMix.parse("40:0.5,120:0.5"), len(SAMPLES), rng
    )
    simulated = simulate(
        workload,
        FAMILY,
        SAMPLES,
        policy_named(policy),
        Machine(slots=slots, noise=0.0, slowdown=SLOWDOWN),
        np.random.default_rng(0),
    )
    lived = live(workload, policy, slots)
    in_order = sorted(lived.dispatches, key=lambda dispatch: dispatch.batch_id)
    assert rounded(in_order) == rounded(simulated.dispatches)
    assert rounded(sorted(lived.records)) == rounded(sorted(simulated.records))
    assert len({record.outcome for record in lived.records}) > 1 or rate < 2000.0
