"""What a look-ahead policy remembers between looks: tables, the forecast, the last price of time."""

from __future__ import annotations

from collections.abc import Iterable

from router.cascades import Cascades
from router.contract import NEVER, Family
from router.demand import DemandKey
from router.fluid import Budget, Forecast, Hull, Hulls
from router.latency import LatencyModel
from router.outlook import Ahead, Outlook, kind_of
from router.view import Lane, View
from router.worth import Table

FORECAST_S = 0.02
"""The forecast is read this often: rates a tenth of a second old change nothing (our routing study)."""
SHORT, LONG = 0.1, 0.9
"""The shortest and the longest usual SLO are these quantiles over rows: few odd requests must not move them."""
MERGE_S = 0.05
"""Hulls whose seconds have changed a little are merged anew this often at most."""
MOST_KINDS = 64
MISS_COST = 0.003
MET_GAIN = 0.00003
LEAST_TRUST = 0.6


class Memory:
    """Tables by family and size class, hulls by kind, the forecast, and the last price of time (quality/second)."""

    def __init__(self, *, follow: bool) -> None:
        self.price = 0.0
        self.trust = 1.0
        """Share of the budget that experience leaves, in [`LEAST_TRUST`, 1]: see `learn`."""
        self.shortest_s = self.longest_s = 0.0
        """The shortest and the longest usual SLO."""
        self.forecast = Forecast()
        self.rows_to_come: list[tuple[float, float]] = []
        """SLO and likely seconds at its cheapest of an expected row, of each class but those with an odd short SLO."""
        self._follow = follow
        self._cascades: dict[str, Cascades] = {}
        self._tables: dict[tuple[str, int], Table] = {}
        self._slo_s: dict[tuple[str, int], float] = {}
        self._weights: dict[str, float] = {}
        self._kinds: set[DemandKey] = set()
        self._hulls: Hulls | None = None
        self._stale = False
        self._forecast_s = self._merged_s = -NEVER
        self._met = self._missed = 0

    def table(self, family: Family, latency: LatencyModel, size_class: int, slo_s: float, now: float) -> Table:
        """The prices of a family and size class, for batches that suit its shortest usual SLO.

        Made at the first call, of which `slo_s` is the SLO as long as nothing is known of others.
        """
        table = self._tables.get((family.name, size_class))
        if table is not None and table.latency is latency and table.cascades.family is family:
            if table.refresh(now, self._slo_s.get((family.name, size_class))):
                self._stale = True
            return table
        cascades = self._cascades.get(family.name)
        if cascades is None or cascades.family is not family:
            cascades = self._cascades[family.name] = Cascades(family, follow=self._follow)
        table = self._tables[family.name, size_class] = Table(cascades, latency, size_class, slo_s, now)
        self._hulls = None
        return table

    def tables(self) -> tuple[Table, ...]:
        """All tables that were made and not replaced."""
        return tuple(self._tables.values())

    def adopt(self, family: str, tables: Iterable[Table]) -> None:
        """The family has changed: these are its tables from now on, if any."""
        self._tables = {name: table for name, table in self._tables.items() if name[0] != family}
        self._cascades.pop(family, None)
        for table in tables:
            self._tables[family, table.size_class] = table
            self._cascades[family] = table.cascades
        self._kinds = {kind for kind in self._kinds if kind.family != family}
        self._hulls = None
        # What is forecast may name variants that are gone.
        self._forecast_s = -NEVER

    def table_of(self, lane: Lane, now: float) -> Table:
        """The prices of a lane's rows."""
        return self.table(lane.family, lane.latency, lane.key.size_class, lane.items[0].slo_s, now)

    def weight(self, family: str) -> float:
        """What the quality of a family counts; never nothing, so that its own price of time exists."""
        return max(self._weights.get(family, 1.0), 1e-6)

    def look(self, view: View, lanes: tuple[Lane, ...], lane: Lane | None, budget: Budget, now: float) -> Outlook:
        """Look at the machine as it is now; `lanes` are those whose rows can still be in time, `lane` has the turn."""
        weights = dict(view.hints.weights) if view.hints is not None else {}
        if weights != self._weights:
            self._weights, self._hulls = weights, None
        self.learn(view)
        for some in (*lanes, *view.kept):
            self.table_of(some, now)
        if now - self._forecast_s >= FORECAST_S:
            self._read(view, lanes, now)
        unknown = {kind_of(some) for some in lanes} - self._kinds
        if self._hulls is None or unknown or (self._stale and now - self._merged_s >= MERGE_S):
            self._kinds |= unknown
            self._hulls, self._stale, self._merged_s = self._merged(), False, now
        ahead = Ahead(self.forecast, self._hulls, self.shortest_s, self.longest_s, self.trust)
        outlook = Outlook(ahead, view, lanes, lane, budget, now)
        self.price = outlook.price
        return outlook

    def learn(self, view: View) -> None:
        """Plan with less time after misses: whatever takes time that no profile knows of shows in them.

        The share settles where one request of `MISS_COST / MET_GAIN` is missed.
        """
        met, missed = view.met - self._met, view.missed - self._missed
        self._met, self._missed = view.met, view.missed
        learnt = self.trust + MET_GAIN * met - MISS_COST * missed
        self.trust = min(max(learnt, LEAST_TRUST), 1.0)

    def given(self, kind: DemandKey, price: float) -> tuple[float, float]:
        """Seconds and quality that a row of a kind is given at a price: see `router.fluid.Hull`."""
        assert self._hulls is not None, "asked after a look at rows of that kind"
        return self._hulls.of[kind].given(price)

    def _read(self, view: View, lanes: tuple[Lane, ...], now: float) -> None:
        """Read the forecast."""
        self._forecast_s = now
        if len(self._kinds) > MOST_KINDS:
            self._kinds, self._hulls = set(), None
        classes = [
            known for known in view.demand.classes(now) if (known.key.family, known.key.size_class) in self._tables
        ]
        self.forecast = Forecast(classes)
        kinds = {known.key for known in classes}
        if not kinds <= self._kinds:
            self._kinds |= kinds
            self._hulls = None
        self._slo_s = {}
        for name in {(kind.family, kind.size_class) for kind in kinds}:
            own = Forecast([known for known in classes if (known.key.family, known.key.size_class) == name])
            self._slo_s[name] = own.usual_slo_s(SHORT)
        waiting = [lane.items[0].slo_s for lane in lanes]
        if classes:
            self.shortest_s = self.forecast.usual_slo_s(SHORT)
            waiting.append(self.forecast.usual_slo_s(LONG))
        else:
            self.shortest_s = min(waiting, default=0.1)
        self.longest_s = max(waiting, default=0.1)
        self.rows_to_come = [
            (known.slo_s, self._tables[known.key.family, known.key.size_class].row_s(known.key.lowest))
            for known in classes
            if known.slo_s >= self.shortest_s
        ]

    def _merged(self) -> Hulls:
        hulls = {}
        for kind in self._kinds:
            table = self._tables[kind.family, kind.size_class]
            cost, quality = table.hull(kind.lowest, pinned=kind.pinned >= 0)
            quality = self.weight(kind.family) * quality
            hulls[kind] = Hull(tuple((table.scale * cost).tolist()), tuple(quality.tolist()))
        return Hulls(hulls)
