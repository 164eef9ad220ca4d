"""Placement in virtual time: the scheduler and the placement that serve, with scripted load times and memory.

What `service.appraisal` does before it plans (gains by the time that is left, the most rivals) and the pace of loading
are left out.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from loadtests.cold_workload import Visits
from router.contract import Dispatch, Record, Slot
from router.family import Family
from router.latency import LatencyModel
from router.limits import Limits
from router.placement import Load, Loadable, Placement, Spot, Step, Wanted, gains, room_to_spare
from router.policies import policy_named
from router.popularity import Popularity
from router.request import NEVER, Request
from router.scheduler import Scheduler

TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Memory:
    """What variants take (bytes) and how long they take to load (seconds), by name, and what is allowed."""

    bytes: Mapping[str, int]
    load_s: Mapping[str, float]
    budget_bytes: int


@dataclass(frozen=True, slots=True)
class Simulated:
    """`records` in the order in which requests ended; `most_bytes` is what models took at most; and what was done."""

    records: tuple[Record, ...]
    most_bytes: int
    loads: int
    evictions: int


class ColdSimulation:
    """One run. Each copy of `family` is served under its own name; batches take the profiled median times noise."""

    def __init__(
        self,
        family: Family,
        names: Sequence[str],
        memory: Memory,
        placement: Placement,
        rng: np.random.Generator,
        slots: int = 2,
        noise: float = 0.08,
    ) -> None:
        self._rng, self._noise, self._memory, self._placement = rng, noise, memory, placement
        self._family = family
        cold = [replace(family, name=name, loaded=(), evidence=None) for name in names]
        self._families = {one.name: one for one in cold}
        indices = [Slot(index) for index in range(slots)]
        self._scheduler = Scheduler(cold, indices, policy_named("casc"), Limits(reply_margin_s=0.002))
        self._profile = LatencyModel(family)
        self._loaded: dict[str, set[int]] = {name: set() for name in names}
        self._popularity = Popularity()
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = 0
        self._loading = False
        self._evicted: list[tuple[str, set[int]]] = []
        self._steps: list[Step] = []
        self._loads = self._evictions = self._most_bytes = 0
        variants = family.variants
        first = min(range(len(variants)), key=lambda index: memory.bytes[variants[index].name])
        added = gains({index: variant.quality for index, variant in enumerate(variants)}, first)
        self._loadable = {
            name: {i: Loadable((f"{name}/{variants[i].name}",), gain) for i, gain in added.items()} for name in names
        }
        self._sizes = {f"{name}/{v.name}": memory.bytes[v.name] for name in names for v in variants}
        least = min(memory.bytes.values())
        spare_bytes = room_to_spare([{name: least} for name in names], memory.budget_bytes)
        # LRU, to compare with, leaves nothing free.
        self._spare_bytes = spare_bytes if placement.order == "value" else 0.0

    def run(self, visits: Visits, names: Sequence[str], slo_s: float) -> Simulated:
        """Serve the visits to their end."""
        arrivals = visits.arrival_s.tolist()
        for number, (arrival_s, rank) in enumerate(zip(arrivals, visits.family.tolist(), strict=True)):
            self._at(arrival_s, partial(self._arrives, number, names[rank], slo_s))
        for tick in range(int(arrivals[-1]) + 1 if arrivals else 0):
            self._at(float(tick), self._consider)
        records: list[Record] = []
        wake_at = NEVER
        while self._events or wake_at < NEVER:
            now = min(self._events[0][0] if self._events else NEVER, wake_at)
            while self._events and self._events[0][0] <= now:
                heapq.heappop(self._events)[2](now)
            poll = self._scheduler.poll(now)
            records += poll.records
            wake_at = poll.wake_at
            for dispatch in poll.dispatches:
                self._at(now + self._draw_s(dispatch), partial(self._ends, dispatch))
        return Simulated(tuple(records), self._most_bytes, self._loads, self._evictions)

    def _at(self, when_s: float, do: Callable[[float], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (when_s, self._count, do))

    def _draw_s(self, dispatch: Dispatch) -> float:
        variant = self._family.index(dispatch.variant)
        assert variant is not None, "a dispatched variant belongs to its family"
        rows, size_class = len(dispatch.items), dispatch.items[0].size_class
        median_s = self._profile.median_s(variant, rows, size_class, dispatch.start)
        return median_s * float(np.exp(self._noise * self._rng.standard_normal()))

    def _arrives(self, number: int, name: str, slo_s: float, now: float) -> None:
        self._scheduler.submit(Request(number, name, (0,), now, now + slo_s, now + TIMEOUT_S), now)
        self._popularity.observe(name, 1, now)
        if self._scheduler.cold_rows:
            self._consider(now)

    def _ends(self, dispatch: Dispatch, now: float) -> None:
        self._scheduler.complete(dispatch.batch_id, now)
        self._go_on(now)

    def _consider(self, now: float) -> None:
        if self._loading or self._steps or self._evicted:
            return
        cold, busy = self._scheduler.cold(), self._scheduler.busy()
        wanted = []
        for name, loadable in self._loadable.items():
            waits = cold.get(name)
            since_s = {next(iter(loadable)): waits.since_s} if waits is not None else {}
            last_s = self._popularity.last_s.get(name, 0.0)
            per_s = self._popularity.per_s(name, now)
            wanted.append(Wanted(name, per_s, loadable, since_s, name in busy, last_s=last_s))
        held = [Spot(name, variant) for name, variants in self._loaded.items() for variant in variants]
        steps = self._placement.plan(wanted, self._sizes, held, (), self._memory.budget_bytes, self._spare_bytes)
        last = next((at for at, step in enumerate(steps) if isinstance(step, Load)), len(steps) - 1)
        self._steps = list(steps[: last + 1])
        self._go_on(now)

    def _go_on(self, now: float) -> None:
        """The next steps, as far as batches let go of what is to leave."""
        while self._evicted and not self._scheduler.in_use(self._evicted[0][0]) & {
            self._family.variants[variant].name for variant in self._evicted[0][1]
        }:
            name, variants = self._evicted.pop(0)
            self._loaded[name] -= variants
            self._evictions += len(variants)
        while self._steps and not self._evicted and not self._loading:
            step = self._steps.pop(0)
            spot = step.spot
            if isinstance(step, Load):
                self._loading = True
                load_s = self._memory.load_s[self._family.variants[spot.variant].name]
                self._at(now + load_s, partial(self._is_loaded, spot))
            else:
                self._show(spot.family, self._loaded[spot.family] - {spot.variant}, now)
                self._evicted.append((spot.family, {spot.variant}))
                self._go_on(now)

    def _is_loaded(self, spot: Spot, now: float) -> None:
        self._loading = False
        self._loads += 1
        self._loaded[spot.family].add(spot.variant)
        held = (f"{name}/{self._family.variants[v].name}" for name, vs in self._loaded.items() for v in vs)
        self._most_bytes = max(self._most_bytes, sum(self._sizes[file] for file in held))
        self._show(spot.family, self._loaded[spot.family], now)
        self._consider(now)

    def _show(self, name: str, loaded: set[int], now: float) -> None:
        family = self._families[name].with_loaded(loaded)
        self._scheduler.replace(self._scheduler.prepare(family), now)
