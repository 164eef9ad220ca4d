"""What policies see of the machine, made anew for every decision: its families, rows and slots, and advice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from router.backlog import Backlog, LaneKey
from router.contract import Hints
from router.demand import Demand
from router.family import Family
from router.latency import LatencyModel
from router.ledger import Ledger
from router.request import NEVER
from router.slots import Slots, Soon
from router.view import Lane, View

RELAX_S = 0.005
"""Margins and beliefs are looked at this often at most: they change over tenths of a second."""
SPARE_LANES = 64


class Known(NamedTuple):
    """A family and what is learnt of its latencies."""

    family: Family
    latency: LatencyModel


class Viewer:
    """Makes views, and sets the families' latency models for them: their margins, and that an idle family recovers.

    `margins` has the planning margin of each family of `families`, `None` where it is learnt. A policy sees the first
    `look_ahead` rows of a lane and is told the `reply_margin_s`.
    """

    __slots__ = ("_families", "_hints", "_lanes", "_look_ahead", "_margins", "_relaxed_s", "_reply_margin_s")

    def __init__(
        self,
        families: Mapping[str, Known],
        margins: Mapping[str, float | None],
        look_ahead: int,
        reply_margin_s: float,
    ) -> None:
        self._families = families
        self._margins = margins
        self._look_ahead = look_ahead
        self._reply_margin_s = reply_margin_s
        self._hints: Hints | None = None
        self._lanes: dict[LaneKey, Lane] = {}
        """The lanes of the last view: most are still as they were."""
        self._relaxed_s = -NEVER

    def set_hints(self, hints: Hints | None) -> None:
        """Advice of the slow outer loop; forgotten by itself after its age."""
        self._hints = hints
        self._relaxed_s = -NEVER

    def fresh_hints(self, now: float) -> Hints | None:
        """The advice, `None` where there is none or it is too old."""
        hints = self._hints
        if hints is None:
            return None
        return hints if 0.0 <= now - hints.issued_s <= hints.max_age_s else None

    def view(
        self, backlog: Backlog, slots: Slots, demand: Demand, ledger: Ledger, now: float, soon: Soon | None = None
    ) -> View:
        """The state of the machine at this moment.

        With `soon`, as if that slot were free, all others busy, and nothing to do in the background.
        """
        hints = self.fresh_hints(now)
        if now - self._relaxed_s >= RELAX_S:
            self._relaxed_s = now
            self._relax(backlog, slots, hints, now)
        known, changed, look_ahead = self._lanes, backlog.changed, self._look_ahead
        lanes: list[Lane] = []
        background: list[Lane] = []
        kept: list[Lane] = []
        for key, items in backlog.lanes():
            lane = known.get(key)
            family, latency = self._families[key.family]
            if lane is None or lane.family is not family or lane.latency is not latency or key in changed:
                ahead = tuple(items[:look_ahead])
                rows = () if slots.kinds is None else items
                lane = known[key] = Lane(key, family, latency, len(items), ahead, items[-1].deadline_s, rows)
            (kept if key.at >= 0 else background if key.background else lanes).append(lane)
        changed.clear()
        if len(known) > 2 * (len(lanes) + len(background) + len(kept)) + SPARE_LANES:
            self._lanes = {lane.key: lane for lane in (*lanes, *background, *kept)}
        free, busy_until_s = tuple(slots.free), slots.busy_until_s(now)
        if soon is not None:
            # Work without a deadline takes spare time, and whether there is some is not known yet.
            free, busy_until_s, background = (soon.slot,), slots.busy_until_s(now, but=soon.slot), []
        busy_slots: tuple[int, ...] = ()
        left: tuple[int, ...] = ()
        if slots.kinds is not None:
            busy_slots = slots.busy_slots(-1 if soon is None else soon.slot)
            if soon is not None:
                # Slots of other devices may be free, though not for what waits.
                left = tuple(slots.free)
                busy_slots, busy_until_s = (*busy_slots, *left), (*busy_until_s, *(now for _ in left))
        return View(
            free,
            busy_until_s,
            tuple(lanes),
            tuple(background),
            hints,
            tuple(kept),
            demand,
            self._reply_margin_s,
            ledger.met,
            ledger.missed,
            slots.kinds,
            busy_slots,
            left=left,
        )

    def _relax(self, backlog: Backlog, slots: Slots, hints: Hints | None, now: float) -> None:
        """Set the margins of the families whose rows wait, and let those recover that do not run."""
        running = {(dispatch.family, dispatch.device) for dispatch in slots.running}
        for name in {key.family for key, _ in backlog.lanes()}:
            latency = self._families[name].latency
            latency.set_margin(self._margins[name], hints.caution.get(name, 1.0) if hints is not None else 1.0)
            latency.relax_idle(now, [device for family, device in running if family == name])
