"""What a look-ahead policy remembers between looks: tables, the kinds of rows in use, the forecast, the last price."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from router.cascades import Cascades
from router.contract import NEVER, Family
from router.demand import DemandKey
from router.fluid import Arrivals, Budget, Curve, Floats, Segments
from router.glance import GLANCE_S, Choice, ranked
from router.latency import LatencyModel
from router.outlook import Outlook, Planned, kind_of
from router.view import Lane, View
from router.worth import Table

FORECAST_S = 0.005
"""The forecast is read this often: rates a tenth of a second old change nothing (our routing study)."""
SHORT, LONG = 0.1, 0.9
"""The shortest and the longest usual SLO are these quantiles over rows: few odd requests must not move them."""
MERGE_S = 0.05
"""Hulls whose seconds have changed a little are merged anew this often at most."""
MOST_KINDS = 64
SATURATED_S = 0.01
"""A look that found no time to spare is believed for this long."""
MISS_COST = 0.003
MET_GAIN = 0.00003
LEAST_TRUST = 0.6


def usual_slo(slo_s: Floats, rate: Floats, share: float) -> float:
    """The SLO that the given share of the rows has at most; classes of `slo_s` [c] seconds and `rate` [c]."""
    order = slo_s.argsort(kind="stable")
    rows = rate[order].cumsum()
    return float(slo_s[order][min(int(rows.searchsorted(share * rows[-1])), len(rows) - 1)])


class Memory:
    """Tables by family and size class, the kinds in use, the forecast, and the last price of time (quality/second)."""

    def __init__(self, *, follow: bool) -> None:
        self.price = 0.0
        self._follow = follow
        self._cascades: dict[str, Cascades] = {}
        self._tables: dict[tuple[str, int], Table] = {}
        self._slo_s: dict[tuple[str, int], float] = {}
        self._weights: dict[str, float] = {}
        self._forecast_s = self._merged_s = -NEVER
        self._stale = False
        self._looked_s = self._tight_s = -NEVER
        self._saturated = False
        self._curves: dict[bool, Curve] = {}
        self._rankings: dict[tuple[DemandKey, bool], list[Choice]] = {}
        self.kinds: dict[DemandKey, int] = {}
        self.segments: Segments | None = None
        self.arrivals = Arrivals(np.zeros(0, np.intp), np.zeros(0), np.zeros(0))
        self.trust = 1.0
        """Share of the budget that experience leaves, in [`LEAST_TRUST`, 1]: see `learn`."""
        self._met = self._missed = 0
        self.row_s = np.zeros(0)
        """Planned seconds of a row of each class of `arrivals` at its cheapest."""
        self.shortest_s = self.longest_s = 0.0

    def table(self, family: Family, latency: LatencyModel, size_class: int, slo_s: float, now: float) -> Table:
        """The prices of a family and size class, for batches that suit its shortest usual SLO.

        Made at the first call, of which `slo_s` is the SLO as long as nothing is known of others.
        """
        table = self._tables.get((family.name, size_class))
        if table is not None and table.latency is latency:
            if table.refresh(now, self._slo_s.get((family.name, size_class))):
                self._stale = True
            return table
        cascades = self._cascades.get(family.name)
        if cascades is None or cascades.family is not family:
            cascades = self._cascades[family.name] = Cascades(family, follow=self._follow)
        table = self._tables[family.name, size_class] = Table(cascades, latency, size_class, slo_s, now)
        self.segments = None
        return table

    def table_of(self, lane: Lane, now: float) -> Table:
        """The prices of a lane's rows."""
        return self.table(lane.family, lane.latency, lane.key.size_class, lane.items[0].slo_s, now)

    def weight(self, family: str) -> float:
        """What the quality of a family counts; never nothing, so that its own price of time exists."""
        return max(self._weights.get(family, 1.0), 1e-6)

    def look(self, view: View, lanes: tuple[Lane, ...], budget: Budget, now: float) -> Outlook:
        """Look at the machine as it is now; `lanes` are those whose rows can still be in time."""
        weights = dict(view.hints.weights) if view.hints is not None else {}
        if weights != self._weights:
            self._weights, self.segments = weights, None
        self.learn(view)
        for lane in (*lanes, *view.kept):
            self.table_of(lane, now)
        if now - self._forecast_s >= FORECAST_S:
            self._forecast(view, lanes, now)
        self._number(kind_of(lane) for lane in (*lanes, *view.kept))
        if self.segments is None or (self._stale and now - self._merged_s >= MERGE_S):
            self.segments = self._merged()
            self._stale, self._merged_s = False, now
        outlook = Outlook(self, self.segments, view, lanes, budget, now)
        self.price = outlook.price
        self._looked_s = now
        self._curves = {False: outlook.planned.near}
        self._saturated = self.segments.count > 0 and outlook.planned.near.segments == 0
        self._rankings = {}
        return outlook

    def learn(self, view: View) -> None:
        """Plan with less time after misses: whatever takes time that no profile knows of shows in them.

        The share settles where one request of `MISS_COST / MET_GAIN` is missed.
        """
        met, missed = view.met - self._met, view.missed - self._missed
        self._met, self._missed = view.met, view.missed
        learnt = self.trust + MET_GAIN * met - MISS_COST * missed
        self.trust = min(max(learnt, LEAST_TRUST), 1.0)

    def is_saturated(self, now: float) -> bool:
        """Whether the last look, lately, found better answers and no time for any of them."""
        return self._saturated and now - self._looked_s < SATURATED_S

    def remember_tight(self, now: float) -> None:
        """The last look found nothing that leaves time to spare."""
        self._tight_s = now

    def is_tight(self, now: float) -> bool:
        """Whether that was so lately."""
        return now - self._tight_s < GLANCE_S

    def remember_burst(self, planned: Planned) -> None:
        """What the last look found with hardly a reserve."""
        self._curves[True] = planned.near

    def ranking(self, lane: Lane, now: float, *, burst: bool = False) -> list[Choice] | None:
        """The choices for a lane's rows as the last look valued time, best first; None where a new look is due."""
        key = kind_of(lane)
        curve = self._curves.get(burst)
        if now - self._looked_s >= GLANCE_S or self.segments is None or key not in self.kinds or curve is None:
            return None
        if (key, burst) not in self._rankings:
            table, kind = self._tables[key.family, key.size_class], self.kinds[key]
            if kind >= self.segments.kinds:
                return None
            weight = self.weight(key.family)
            self._rankings[key, burst] = ranked(table, key, weight, self.segments, kind, curve)
        return self._rankings[key, burst]

    def given_up(self, lane: Lane) -> float:
        """What a row of a lane was worth to the last look with hardly a reserve."""
        curve = self._curves[True]
        assert self.segments is not None, "asked after a ranking"
        at = curve.segments, self.kinds[kind_of(lane)]
        return float(self.segments.taken[at] - curve.price * self.segments.taken_s[at])

    def _forecast(self, view: View, lanes: tuple[Lane, ...], now: float) -> None:
        self._forecast_s = now
        if len(self.kinds) > MOST_KINDS:
            self.kinds, self.segments = {}, None
        classes = [
            known for known in view.demand.classes(now) if (known.key.family, known.key.size_class) in self._tables
        ]
        self._number(known.key for known in classes)
        slo_s = np.array([known.slo_s for known in classes])
        rate = np.array([known.rate_per_s for known in classes])
        self.arrivals = Arrivals(np.array([self.kinds[known.key] for known in classes], dtype=np.intp), slo_s, rate)
        self._slo_s = {}
        for name in {(known.key.family, known.key.size_class) for known in classes}:
            own = [(known.key.family, known.key.size_class) == name for known in classes]
            self._slo_s[name] = usual_slo(slo_s[own], rate[own], SHORT)
        self.row_s = np.array([self._tables[k.key.family, k.key.size_class].row_s(k.key.lowest) for k in classes])
        waiting = [lane.items[0].slo_s for lane in lanes]
        if len(rate):
            self.shortest_s = usual_slo(slo_s, rate, SHORT)
            waiting.append(usual_slo(slo_s, rate, LONG))
        else:
            self.shortest_s = min(waiting, default=0.1)
        self.longest_s = max(waiting, default=0.1)

    def _number(self, keys: Iterable[DemandKey]) -> None:
        for key in keys:
            if key not in self.kinds:
                self.kinds[key] = len(self.kinds)
                self.segments = None

    def _merged(self) -> Segments:
        hulls = []
        for key in self.kinds:
            table = self._tables[key.family, key.size_class]
            cost, quality = table.hull(key.lowest, pinned=key.pinned >= 0)
            hulls.append((table.scale * cost, self.weight(key.family) * quality))
        return Segments(hulls)
