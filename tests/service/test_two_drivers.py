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

from loadtests.machine import Machine
from loadtests.simulator import simulate
from loadtests.traces import Shape, arrivals
from loadtests.workload import SloMix, Workload
from router.contract import BatchRecord, Dispatch, Record, Slot
from router.family import Family
from router.latency import LatencyModel
from router.limits import Limits
from router.policies import policy_named
from router.request import Request
from router.scheduler import Scheduler
from router.view import Policy
from router.words import Escalation
from service.dispatcher import Dispatcher
from service.executors import SlotEvents
from service.runner import BatchRunner
from service.work import Ran
from tests.scripted import FAMILY, SAMPLES, STAGED, TwoSteps
from variants.preparation import Answers, Row

SLOWDOWN = 1.3
"""The machine is slower than its profile, so that learning is part of what has to agree."""
REQUESTS = 1000
"""So many, or those of a second and a half: batches, refusals and what is learned of the machine are all among them."""

Running = tuple[float, int, float, Ran]
"""When a batch ends, its number, when it started, and what it gives."""


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
    """A slot whose batches take what the profile says, times the slowdown, and answer as sure as the samples say.

    A row is the number of its sample, and so is the state that a batch leaves of it.
    """

    def __init__(self, family: Family, loop: ManualTime, events: SlotEvents, running: list[Running]) -> None:
        self._family, self._loop, self._events, self._running = family, loop, events, running
        self._free_s = 0.0
        self._profile = LatencyModel(family)

    def start(self, dispatch: Dispatch, rows: Sequence[Row]) -> None:
        """Be done after the scripted time, behind what was begun before."""
        variant = self._family.index(dispatch.variant)
        assert variant is not None
        size_class = dispatch.items[0].size_class
        seconds = self._profile.median_s(variant, len(rows), size_class, dispatch.start) * SLOWDOWN
        confidence = SAMPLES.confidence[dispatch.variant][[int(row[0]) for row in rows]]
        answers = Answers(np.zeros(len(rows), np.int64), np.stack([1.0 - confidence, confidence], axis=1), confidence)
        states = rows if dispatch.to_stage < len(self._family.variants[-1].stages) else ()
        begin_s = max(self._loop.now_s, self._free_s)
        self._free_s = begin_s + seconds
        heapq.heappush(self._running, (self._free_s, dispatch.batch_id, begin_s, Ran(answers, states)))
        self._loop.call_at(self._free_s, self._finish)

    def _finish(self) -> None:
        """Of batches that end together the older one is first: the loop's heap of timers keeps no order of them."""
        _, batch_id, begin_s, ran = heapq.heappop(self._running)
        self._events.done(batch_id, ran, self._loop.now_s - begin_s)

    def give_up(self) -> None:
        """Nothing hangs here."""

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


def live(workload: Workload, family: Family, policy: Policy, slots: int, limits: Limits) -> Log:
    """The workload through the asyncio dispatcher, on manual time, with scripted slots."""
    loop, log = ManualTime(), Log()

    async def serve() -> None:
        running: list[Running] = []
        scheduler = Scheduler([family], [Slot(index) for index in range(slots)], policy, limits)
        dispatcher = Dispatcher(
            scheduler,
            BatchRunner({}),
            lambda events: [Script(family, loop, events, running) for _ in range(slots)],
            [log],
            clock=loop.time,
            timer_step_s=0.0,
        )
        answers = []
        all_submitted = asyncio.Event()
        samples = workload.sample.tolist()
        rows = zip(workload.arrival_s.tolist(), workload.slo_s.tolist(), samples, strict=True)
        requests = [
            Request(index, family.name, (int(SAMPLES.size_class[sample]),), arrival_s, arrival_s + slo_s)
            for index, (arrival_s, slo_s, sample) in enumerate(rows)
        ]

        def arrive(index: int) -> None:
            """One timer at a time: the heap of timers does not keep the order of those that are due together."""
            answers.append(dispatcher.submit(requests[index], [np.array([samples[index]])]))
            if index + 1 < len(requests):
                loop.call_at(requests[index + 1].arrival_s, arrive, index + 1)
            else:
                all_submitted.set()

        loop.call_at(requests[0].arrival_s, arrive, 0)
        await all_submitted.wait()
        await asyncio.gather(*answers)
        assert await dispatcher.drained(1.0)

    loop.run_until_complete(serve())
    loop.close()
    return log


def rounded(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Times to the nanosecond: a timer set for `wake_at - now` from now is off by the last bit."""
    return [tuple(round(value, 9) if isinstance(value, float) else value for value in row) for row in rows]


def compared(family: Family, policy: Policy, slots: int, rate: float, ahead: float) -> Log:
    """What was lived, once it is seen to be what was simulated, batch for batch and request for request."""
    rng = np.random.default_rng(5)
    arrival_s = arrivals("gamma", rate, min(1.5, REQUESTS / rate), Shape(cv2=4.0), rng)
    # No two at one moment: the simulator would see both before it decides, the dispatcher the first alone.
    arrival_s += 1e-7 * np.arange(len(arrival_s))
    workload = Workload.draw(arrival_s, SloMix.parse("40:0.5,120:0.5"), len(SAMPLES), rng)
    machine = Machine(slots=slots, noise=0.0, slowdown=SLOWDOWN)
    limits = Limits(ahead=ahead)
    simulated = simulate(workload, family, SAMPLES, policy, machine, np.random.default_rng(0), limits)
    lived = live(workload, family, policy, slots, limits)
    # What was decided ahead begins when the batch before it ends: observers are told that, not what was expected.
    in_order = sorted(
        (batch._replace(started_s=0.0) if batch.ahead else batch for batch in lived.dispatches),
        key=lambda batch: batch.batch_id,
    )
    decided = [batch._replace(started_s=0.0) if batch.ahead else batch for batch in simulated.dispatches]
    # A batch for a request that was answered meanwhile may outlive the last request, and nobody waits for it.
    assert rounded(in_order) == rounded(decided[: len(in_order)])
    assert rounded(sorted(lived.records)) == rounded(sorted(simulated.records))
    return lived


@pytest.mark.parametrize("policy", ["slack-fraction", "fastest", "most-accurate", "fluid", "casc"])
@pytest.mark.parametrize("family", [FAMILY, STAGED], ids=["independent", "staged"])
@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("rate", [60.0, 400.0, 2000.0])
@pytest.mark.parametrize("ahead", [0.0, 0.7])
def test_live_dispatcher_and_simulator_decide_alike(
    policy: str, family: Family, slots: int, rate: float, ahead: float
) -> None:
    """Same workload, same service times: the same batches at the same moments, the same record for every request."""
    lived = compared(family, policy_named(policy), slots, rate, ahead)
    assert ahead or not any(batch.ahead for batch in lived.dispatches)
    assert not ahead or rate < 400.0 or any(batch.ahead for batch in lived.dispatches)
    assert len({record.outcome for record in lived.records}) > 1 or rate < 2000.0


@pytest.mark.parametrize("family", [FAMILY, STAGED], ids=["independent", "staged"])
@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("rate", [60.0, 400.0])
@pytest.mark.parametrize("ahead", [0.0, 0.7])
def test_both_drivers_escalate_alike(family: Family, slots: int, rate: float, ahead: float) -> None:
    """Kept answers wait, go out and are replaced at the same moments, whether the better variant starts anew or not."""
    lived = compared(family, TwoSteps(), slots, rate, ahead)
    seen = {record.escalation for record in lived.records}
    assert {Escalation.CONFIDENT, Escalation.ESCALATED} <= seen
    assert Escalation.NO_TIME in seen or rate < 400.0
    stages = {dispatch.from_stage for dispatch in lived.dispatches}
    assert stages == ({0, 1} if family is STAGED else {0})
