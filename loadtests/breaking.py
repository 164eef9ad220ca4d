"""Variants that break on the simulated machine: how and when, what is restored, and what is probed."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from router.contract import Poll
from router.request import NEVER
from router.scheduler import Scheduler
from router.words import Reason


@dataclass(frozen=True, slots=True)
class Breaks:
    """Which variants break, how, and from when to when (seconds): by name.

    An executor that is lost is back after `restart_s`; a probe takes `probe_s`.
    """

    spans: Mapping[str, tuple[Reason, float, float]] = field(default_factory=dict)
    restart_s: float = 0.02
    probe_s: float = 0.02

    def fault(self, variant: str, now: float) -> Reason | None:
        """How a batch of that variant ends that begins now; `None`: with an answer."""
        reason, from_s, to_s = self.spans.get(variant, (None, NEVER, NEVER))
        return reason if from_s <= now < to_s else None


class Repairs:
    """What is restored or tried after something broke, by when that is over."""

    def __init__(self, scheduler: Scheduler, breaks: Breaks | None) -> None:
        self._scheduler = scheduler
        self._breaks = breaks or Breaks()
        self._heap: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = 0

    def next_s(self) -> float:
        """When the next one is over."""
        return self._heap[0][0] if self._heap else NEVER

    def make(self, now: float) -> None:
        """Whatever is over by now."""
        while self.next_s() <= now:
            heapq.heappop(self._heap)[2](now)

    def restore(self, slot: int, now: float) -> None:
        """A slot is out of service until its executor has been started anew."""
        self._at(now + self._breaks.restart_s, partial(self._scheduler.restore, slot))

    def begin(self, turn: Poll, now: float) -> None:
        """See to what a turn wants."""
        for dispatch in turn.hung:
            self.restore(dispatch.slot, now)
        for spell in turn.probes:
            fault = self._breaks.fault(spell.variant, now)
            ends_s = now + self._breaks.probe_s
            self._at(ends_s, partial(self._scheduler.probed, spell, fault))

    def _at(self, when_s: float, what: Callable[[float], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (when_s, self._count, what))
