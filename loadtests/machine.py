"""The simulated machine: how it differs from the profile, and the batches that run on it."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loadtests.breaking import Breaks
from loadtests.outcomes import Fate
from router.contract import Dispatch, Slot
from router.family import Family
from router.latency import LatencyModel
from router.request import NEVER
from router.view import Kinds
from router.words import Outcome, Reason

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
    `inbound_s` after its sender meant to send it, and its answer is back `outbound_s` after its batch; with `ways_s`,
    evenly spaced quantiles of both together, each request draws its own.

    `batch_s` is what a batch costs beside the model: the decision, handing it over and back. A batch that was decided
    ahead and has been handed over by then begins when the one before it ends. `request_s` is the
    processor time of the event loop for one request, half of it when it arrives and half when it is answered, and
    `refused_s` (by default as much) for one that is refused, which is neither decoded nor prepared: then half of that
    when any request arrives, and the rest of what it takes when it is answered. The loop
    does one after the other, so that it can itself be overrun, and so it does what a batch takes of it, `decision_s` to
    be decided, handed out and taken back; while all slots are busy, `interference` times its work
    is added to the batch that ends next, at most as much again as that takes: 1 where both share a core, less where the
    loop has one of its own and shares memory, or the other half of a core that runs two threads.

    Where slots are of several `devices`, each slot has the name of its device and its threads; the profile of the
    device says how long batches take there. A batch takes 1 + `contention` times as long while all threads of all other
    slots are busy, and proportionally less while some are.

    `setup` is what a slot's change of models costs: a batch of another family or variant than the slot's last one takes
    as much longer as so many single rows of it, as memory and caches have to bring its weights anew.

    A neighbour that comes and goes is there in the second half of every `hog_period_s` and makes everything that runs
    then take `hog_factor` times as long.
    """

    slots: int = 1
    noise: float = 0.08
    slowdown: float = 1.0
    stragglers: float = 0.0
    straggler_factor: float = 5.0
    inbound_s: float = 0.0
    outbound_s: float = 0.0
    ways_s: tuple[float, ...] = ()
    batch_s: float = 0.0
    request_s: float = 0.0
    refused_s: float | None = None
    decision_s: float = 0.0
    interference: float = 1.0
    hog_factor: float = 1.0
    hog_period_s: float = 2.0
    devices: tuple[tuple[str, int], ...] = ()
    contention: float = 0.0
    setup: float = 0.0

    def __post_init__(self) -> None:
        if self.devices and len(self.devices) != self.slots:
            raise ValueError(f"devices: {len(self.devices)} of {self.slots} slots")

    @property
    def places(self) -> tuple[Slot, ...]:
        """The slots as a scheduler takes them."""
        if not self.devices:
            return tuple([Slot(index) for index in range(self.slots)])
        return tuple([Slot(index, name, width) for index, (name, width) in enumerate(self.devices)])

    @property
    def arriving_s(self) -> float:
        """Processor time of the event loop for a request that arrives, whatever becomes of it."""
        return 0.5 * (self.request_s if self.refused_s is None else min(self.refused_s, self.request_s))

    def ending_s(self, outcome: Outcome) -> float:
        """Processor time of the event loop for a request that ends so."""
        refused = self.refused_s is not None and FATES[outcome] is Fate.REFUSED
        return self.arriving_s if refused else self.request_s - self.arriving_s

    def ends_s(self, start_s: float, work_s: float) -> float:
        """When work that starts then and takes so many undisturbed seconds is done."""
        if self.hog_factor == 1.0:
            return start_s + work_s
        half_s = self.hog_period_s / 2.0
        now, left_s = start_s, work_s
        half = int(now // half_s)
        while True:
            factor = self.hog_factor if half % 2 else 1.0
            span_s = (half + 1) * half_s - now
            if left_s * factor <= span_s:
                return now + left_s * factor
            now, left_s, half = now + span_s, left_s - span_s / factor, half + 1


class Batch:
    """A batch that runs since `began_s`, or from then on at the earliest; it may still be made longer by `spare_s`.

    With a `fault` it ends without an answer, and never where it hangs. By its neighbours it takes `pace` times as long.
    """

    __slots__ = ("began_s", "dispatch", "fault", "pace", "run_s", "spare_s")

    def __init__(self, dispatch: Dispatch, run_s: float, began_s: float) -> None:
        self.dispatch = dispatch
        self.run_s = self.spare_s = run_s
        self.began_s = began_s
        self.pace = 1.0
        self.fault: Reason | None = None


class Running:
    """The batches that run, by their ends, and how long new ones take. Variants break as `breaks` says."""

    def __init__(
        self, families: Sequence[Family], machine: Machine, rng: np.random.Generator, breaks: Breaks | None = None
    ) -> None:
        self._service = _ServiceTimes(families, machine, rng)
        self._machine = machine
        self._breaks = breaks
        self._heap: list[tuple[float, int]] = []
        self._batches: dict[int, Batch] = {}
        self._next: dict[int, Batch] = {}
        self._kinds = Kinds.of(machine.places, {}) if machine.contention else None

    def next_end_s(self) -> float:
        """When the next batch ends; never, where none runs."""
        return self._heap[0][0] if self._heap else NEVER

    def pop(self) -> Batch:
        """Take out the batch that ends next; one that was decided ahead begins."""
        ended_s, batch_id = heapq.heappop(self._heap)
        ended = self._batches.pop(batch_id)
        following = self._next.pop(ended.dispatch.slot, None)
        if following is not None:
            following.began_s = max(following.began_s, ended_s)
            self._begin(following)
        self._repace(ended_s)
        return ended

    def start(self, dispatch: Dispatch, now: float) -> None:
        """Begin a batch, or have it wait for the one before it."""
        batch = Batch(dispatch, self._service.draw_s(dispatch), now + self._machine.batch_s)
        if dispatch.ahead:
            self._next[dispatch.slot] = batch
        else:
            self._begin(batch)

    def lose(self, slot: int, now: float) -> None:
        """The slot's batches are gone."""
        self._next.pop(slot, None)
        gone = {number for number, batch in self._batches.items() if batch.dispatch.slot == slot}
        if gone:
            self._batches = {number: batch for number, batch in self._batches.items() if number not in gone}
            self._heap = [entry for entry in self._heap if entry[1] not in gone]
            heapq.heapify(self._heap)
            self._repace(now)

    def _begin(self, batch: Batch) -> None:
        batch_id = batch.dispatch.batch_id
        if self._breaks is not None:
            batch.fault = self._breaks.fault(batch.dispatch.variant, batch.began_s)
        ends_s = self._machine.ends_s(batch.began_s, batch.run_s)
        heapq.heappush(self._heap, (NEVER if batch.fault is Reason.HUNG else ends_s, batch_id))
        self._batches[batch_id] = batch
        self._repace(batch.began_s)

    def _repace(self, now: float) -> None:
        """Others run from now on than before: what is left of each batch takes longer, or less long."""
        kinds, contention = self._kinds, self._machine.contention
        if kinds is None:
            return
        busy = [batch.dispatch.slot for batch in self._batches.values()]
        for place, (ends_s, batch_id) in enumerate(self._heap):
            batch = self._batches[batch_id]
            pace = 1.0 + contention * kinds.crowd(batch.dispatch.slot, busy)
            if ends_s != NEVER and pace != batch.pace:
                # One that is decided already may begin a little later than now.
                since_s = max(now, batch.began_s)
                left_s = max(0.0, ends_s - since_s)
                self._heap[place] = since_s + left_s * pace / batch.pace if left_s else ends_s, batch_id
            batch.pace = pace
        heapq.heapify(self._heap)

    def disturb(self, loop_s: float) -> None:
        """The event loop works for so many seconds."""
        machine = self._machine
        if loop_s == 0.0 or len(self._heap) < machine.slots:
            return
        end_s, batch_id = self._heap[0]
        batch = self._batches[batch_id]
        extra_s = min(batch.spare_s, machine.interference * loop_s)
        batch.spare_s -= extra_s
        heapq.heapreplace(self._heap, (end_s + extra_s, batch_id))


class _ServiceTimes:
    """Draws how long batches really take."""

    def __init__(self, families: Sequence[Family], machine: Machine, rng: np.random.Generator) -> None:
        self._profiles = {family.name: (family, LatencyModel(family)) for family in families}
        self._machine = machine
        self._rng = rng
        self._last: dict[int, tuple[str, int]] = {}
        """The model that each slot ran last."""

    def draw_s(self, dispatch: Dispatch) -> float:
        machine = self._machine
        family, profile = self._profiles[dispatch.family]
        variant = family.index(dispatch.variant)
        assert variant is not None, "a dispatched variant belongs to its family"
        first = dispatch.items[0]
        if machine.devices:
            profile = profile.on(machine.devices[dispatch.slot][0])
        median_s = profile.median_s(variant, len(dispatch.items), first.size_class, dispatch.start)
        if machine.setup:
            model = dispatch.family, variant
            if self._last.get(dispatch.slot) != model:
                median_s += machine.setup * profile.median_s(variant, 1, first.size_class, dispatch.start)
            self._last[dispatch.slot] = model
        factor = machine.slowdown * math.exp(machine.noise * self._rng.standard_normal())
        if machine.stragglers > 0.0 and self._rng.random() < machine.stragglers:
            factor *= machine.straggler_factor
        return median_s * factor
