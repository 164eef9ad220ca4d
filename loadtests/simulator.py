"""The virtual-clock driver: the very scheduler that serves, replayed through a workload faster than real time.

It only moves the clock and keeps a heap of batches that run; every decision is the scheduler's. A batch takes its
profiled median times seeded log-normal noise. What HTTP costs is added outside the scheduler, as it is live: the
deadline counts from receipt, while the score counts from the intended start.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np

from loadtests.samples import Samples
from loadtests.scoring import Fate, Results
from loadtests.workload import Workload
from router.contract import NEVER, Dispatch, Family, Outcome, Record, Request, Slot
from router.latency import LatencyModel
from router.scheduler import Limits, Scheduler
from router.view import Policy

FATES = {
    Outcome.SERVED: Fate.ANSWERED,
    Outcome.SERVED_LATE: Fate.ANSWERED,
    Outcome.REJECTED_FULL: Fate.REFUSED,
    Outcome.REJECTED_INFEASIBLE: Fate.REFUSED,
    Outcome.REJECTED_QUOTA: Fate.REFUSED,
    Outcome.EXPIRED: Fate.EXPIRED,
    Outcome.CANCELLED: Fate.FAILED,
    Outcome.FAILED: Fate.FAILED,
}


@dataclass(frozen=True, slots=True)
class Machine:
    """How the simulated machine differs from the profile.

    `slots` batches run at a time. Batch seconds are the profiled median times `slowdown` times exp(N(0, `noise`));
    a share of `stragglers` takes `straggler_factor` times as long on top. A request reaches the scheduler
    `inbound_s` after its sender meant to send it, and its answer is back `outbound_s` after its batch.
    """

    slots: int = 1
    noise: float = 0.08
    slowdown: float = 1.0
    stragglers: float = 0.0
    straggler_factor: float = 5.0
    inbound_s: float = 0.0
    outbound_s: float = 0.0


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
) -> Simulation:
    """Run the workload to its end. The same arguments and the same state of `rng` give the same simulation.

    `margin` replaces the scheduler's default planning margin. Each request carries its index as id.
    """
    margins = None if margin is None else {family.name: margin}
    slots = tuple(Slot(index) for index in range(machine.slots))
    scheduler = Scheduler([family], slots, policy, limits, margins)
    service = _ServiceTimes(family, machine, rng)
    requests = _requests(workload, family, samples, machine)
    records: list[Record] = []
    dispatches: list[Dispatch] = []
    running: list[tuple[float, int]] = []
    flying: dict[int, Dispatch] = {}
    wake_at, arrived = NEVER, 0
    while True:
        next_arrival_s = requests[arrived].arrival_s if arrived < len(requests) else NEVER
        next_end_s = running[0][0] if running else NEVER
        now = min(next_arrival_s, next_end_s, wake_at)
        if now == NEVER:
            break
        while running and running[0][0] <= now:
            dispatch = flying.pop(heapq.heappop(running)[1])
            scheduler.complete(dispatch.batch_id, now, None, _confidences(dispatch, workload, samples))
        while arrived < len(requests) and requests[arrived].arrival_s <= now:
            scheduler.submit(requests[arrived], now)
            arrived += 1
        turn = scheduler.poll(now)
        for dispatch in turn.dispatches:
            flying[dispatch.batch_id] = dispatch
            heapq.heappush(running, (now + service.draw_s(dispatch), dispatch.batch_id))
        dispatches.extend(turn.dispatches)
        records.extend(turn.records)
        wake_at = turn.wake_at
    return Simulation(_results(workload, samples, machine, records), tuple(records), tuple(dispatches))


class _ServiceTimes:
    """Draws how long batches really take."""

    def __init__(self, family: Family, machine: Machine, rng: np.random.Generator) -> None:
        self._family = family
        self._profile = LatencyModel(family)
        self._machine = machine
        self._rng = rng

    def draw_s(self, dispatch: Dispatch) -> float:
        machine = self._machine
        variant = self._family.index(dispatch.variant)
        assert variant is not None, "a dispatched variant belongs to its family"
        first = dispatch.items[0]
        start = first.at if dispatch.from_stage else -1
        median_s = self._profile.median_s(variant, len(dispatch.items), first.size_class, start)
        factor = machine.slowdown * math.exp(machine.noise * self._rng.standard_normal())
        if machine.stragglers > 0.0 and self._rng.random() < machine.stragglers:
            factor *= machine.straggler_factor
        return median_s * factor


def _confidences(dispatch: Dispatch, workload: Workload, samples: Samples) -> list[float]:
    confidence = samples.confidence[dispatch.variant]
    return [float(confidence[workload.sample[item.request_id]]) for item in dispatch.items]


def _requests(workload: Workload, family: Family, samples: Samples, machine: Machine) -> list[Request]:
    arrivals = (workload.arrival_s + machine.inbound_s).tolist()
    deadlines = (workload.arrival_s + machine.inbound_s + workload.slo_s).tolist()
    size_classes = samples.size_class[workload.sample].tolist()
    return [
        Request(index, family.name, (size_class,), arrival_s, deadline_s)
        for index, (arrival_s, deadline_s, size_class) in enumerate(zip(arrivals, deadlines, size_classes, strict=True))
    ]


def _results(workload: Workload, samples: Samples, machine: Machine, records: list[Record]) -> Results:
    results = Results.pending(len(workload))
    arrival_s = workload.arrival_s.tolist()
    sample = workload.sample.tolist()
    for record in records:
        index = record.request_id
        fate = FATES[record.outcome]
        results.fate[index] = fate
        if fate is Fate.ANSWERED:
            results.variant[index] = record.variant
            results.label[index] = samples.predicted[record.variant][sample[index]]
            results.latency_s[index] = record.finished_s + machine.outbound_s - arrival_s[index]
            results.total_s[index], results.compute_s[index] = record.total_s, record.compute_s
    return results
