"""The virtual-clock driver: the very scheduler that serves, replayed through a workload faster than real time.

It only moves the clock and keeps a heap of batches that run; every decision is the scheduler's. A batch takes its
profiled median times seeded log-normal noise. What HTTP costs is added outside the scheduler, as it is live: the
deadline counts from receipt, while the score counts from the intended start. HTTP and
decisions also take processor time: the event loop does one thing after the other, so that requests wait outside and
batches that have ended are taken back late, and while all slots are busy what it does makes a batch longer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from loadtests.breaking import Breaks, Repairs
from loadtests.machine import FATES, Machine, Running
from loadtests.outcomes import Fate, Results
from loadtests.samples import Samples
from loadtests.traces import Seconds
from loadtests.workload import Workload
from router.contract import Dispatch, Record
from router.family import Family
from router.limits import Limits
from router.quarantine import HARD
from router.request import NEVER, Request
from router.scheduler import Scheduler
from router.view import Policy


@dataclass(frozen=True, slots=True)
class Simulation:
    """`results` for scoring, `records` in the order in which requests ended, `dispatches` as they were started."""

    results: Results
    records: tuple[Record, ...]
    dispatches: tuple[Dispatch, ...]


def simulate(
    workload: Workload,
    family: Family,
    samples: Samples,
    policy: Policy,
    machine: Machine,
    rng: np.random.Generator,
    limits: Limits | None = None,
    margin: float | None = None,
    truth: Family | None = None,
    make: Callable[..., Scheduler] = Scheduler,
    breaks: Breaks | None = None,
) -> Simulation:
    """Run the workload to its end. The same arguments and the same state of `rng` give the same simulation.

    `margin` replaces the scheduler's default planning margin. `truth` has the profile that the machine keeps to where
    the scheduler's is wrong: the same variants in the same order. `make` makes the scheduler, from what `Scheduler`
    takes. Variants break as `breaks` says. Each request carries its index as id.
    """
    outbound_s = outbound(machine, len(workload), rng)
    only = replica(workload, family, samples, policy, machine, rng, limits, margin, truth, make, breaks)
    for request in requests_of(workload, family, samples, machine):
        only.offer(request)
    only.run()
    results = results_of(workload, samples, only.records, outbound_s)
    return Simulation(results, tuple(only.records), tuple(only.dispatches))


def replica(
    workload: Workload,
    family: Family,
    samples: Samples,
    policy: Policy,
    machine: Machine,
    rng: np.random.Generator,
    limits: Limits | None = None,
    margin: float | None = None,
    truth: Family | None = None,
    make: Callable[..., Scheduler] = Scheduler,
    breaks: Breaks | None = None,
) -> Replica:
    """A replica that answers requests of this workload, as in `simulate`."""
    margins = None if margin is None else {family.name: margin}
    scheduler = make([family], machine.places, policy, limits, margins)

    def confidences(dispatch: Dispatch) -> list[float]:
        confidence = samples.confidence[dispatch.variant]
        return [float(confidence[workload.sample[item.request_id]]) for item in dispatch.items]

    return Replica(scheduler, [truth or family], machine, rng, confidences, breaks)


def replay(
    scheduler: Scheduler,
    requests: Sequence[Request],
    families: Sequence[Family],
    machine: Machine,
    rng: np.random.Generator,
    confidences: Callable[[Dispatch], list[float]],
) -> tuple[list[Record], list[Dispatch]]:
    """Drive a scheduler through requests in order of arrival, until the last one has ended.

    Returns records in the order in which requests ended, and batches as they were started.
    """
    only = Replica(scheduler, families, machine, rng, confidences)
    for request in requests:
        only.offer(request)
    only.run()
    return only.records, only.dispatches


class Replica:
    """A scheduler and its machine, as far as the requests that were offered have taken them.

    `families` have the profiles that the machine keeps to; `confidences` of a batch are those of its rows' answers.
    Variants break as `breaks` says. `records` are in the order in which requests ended, `dispatches` as they were
    started.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        families: Sequence[Family],
        machine: Machine,
        rng: np.random.Generator,
        confidences: Callable[[Dispatch], list[float]],
        breaks: Breaks | None = None,
    ) -> None:
        self.records: list[Record] = []
        self.dispatches: list[Dispatch] = []
        self._scheduler = scheduler
        self._machine = machine
        self._confidences = confidences
        self._running = Running(families, machine, rng, breaks)
        self._repairs = Repairs(scheduler, breaks)
        self._waiting: deque[Request] = deque()
        self._offered = 0
        self._free_at = 0.0
        self._wake_at = NEVER

    @property
    def in_flight(self) -> int:
        """Requests that were offered and have not ended."""
        return self._offered - len(self.records)

    def offer(self, request: Request) -> None:
        """Take a request that arrives when it says, not before those that were offered already."""
        self._offered += 1
        self._waiting.append(request)

    def run(self, before_s: float = NEVER) -> None:
        """Do everything that happens before that moment; without one, until the last request has ended."""
        while (now := max(self._free_at, self._next_s())) < before_s:
            self._step(now)

    def _next_s(self) -> float:
        return min(self._arrival_s(), self._running.next_end_s(), self._repairs.next_s(), self._wake_at)

    def _arrival_s(self) -> float:
        return self._waiting[0].arrival_s if self._waiting else NEVER

    def _step(self, now: float) -> None:
        scheduler, machine, running = self._scheduler, self._machine, self._running
        self._repairs.make(now)
        while (ended_s := running.next_end_s()) <= now:
            batch = running.pop()
            if batch.fault in HARD:
                scheduler.lose(batch.dispatch.slot, batch.fault, now)
                running.lose(batch.dispatch.slot, now)
                self._repairs.restore(batch.dispatch.slot, now)
                continue
            if batch.fault is not None:
                scheduler.fail(batch.dispatch.batch_id, batch.fault, now, now - ended_s)
                continue
            answered = self._confidences(batch.dispatch)
            scheduler.complete(batch.dispatch.batch_id, now, ended_s - batch.began_s, answered, now - ended_s)
        arriving_s = machine.arriving_s
        while max(self._free_at, self._arrival_s()) <= now:
            scheduler.submit(self._waiting.popleft(), now)
            running.disturb(arriving_s)
            self._free_at = now + arriving_s
        turn = scheduler.poll(now)
        if turn.dispatches:
            decided_s = len(turn.dispatches) * machine.decision_s
            running.disturb(decided_s)
            self._free_at = max(self._free_at, now) + decided_s
        for dispatch in turn.hung:
            running.lose(dispatch.slot, now)
        self._repairs.begin(turn, now)
        for dispatch in turn.dispatches:
            running.start(dispatch, now)
        if turn.records:
            ending_s = sum([machine.ending_s(record.outcome) for record in turn.records])
            running.disturb(ending_s)
            self._free_at = max(self._free_at, now) + ending_s
        self.dispatches.extend(turn.dispatches)
        self.records.extend(turn.records)
        self._wake_at = turn.wake_at


def requests_of(workload: Workload, family: Family, samples: Samples, machine: Machine) -> list[Request]:
    """What the scheduler is asked, in order of arrival; ids are places in the workload."""
    arrivals = (workload.arrival_s + machine.inbound_s).tolist()
    deadlines = (workload.arrival_s + machine.inbound_s + workload.slo_s).tolist()
    size_classes = samples.size_class[workload.sample].tolist()
    return [
        Request(index, family.name, (size_class,), arrival_s, deadline_s)
        for index, (arrival_s, deadline_s, size_class) in enumerate(zip(arrivals, deadlines, size_classes, strict=True))
    ]


def outbound(machine: Machine, count: int, rng: np.random.Generator) -> Seconds:
    """Seconds of each request's way back, float64 [count]; all take equally long there, which keeps their order."""
    if not machine.ways_s:
        return np.full(count, machine.outbound_s)
    at = rng.random(count) * len(machine.ways_s) - 0.5
    ways_s = np.interp(at, np.arange(len(machine.ways_s)), np.array(machine.ways_s))
    outbound_s: Seconds = np.maximum(0.0, ways_s - machine.inbound_s)
    return outbound_s


def results_of(workload: Workload, samples: Samples, records: Iterable[Record], outbound_s: Seconds) -> Results:
    """What became of each request, from the records and the seconds of its way back, float64 [n]."""
    results = Results.pending(len(workload))
    arrival_s = workload.arrival_s.tolist()
    sample = workload.sample.tolist()
    for record in records:
        index = record.request_id
        fate = FATES[record.outcome]
        results.fate[index] = fate
        if fate is Fate.ANSWERED:
            results.variant[index] = record.variant
            results.escalated[index] = len(record.path) > 1
            results.label[index] = samples.predicted[record.variant][sample[index]]
            results.latency_s[index] = record.finished_s + outbound_s[index] - arrival_s[index]
            results.total_s[index], results.compute_s[index] = record.total_s, record.compute_s
    return results
