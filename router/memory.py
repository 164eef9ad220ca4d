"""What a look-ahead policy remembers between looks: tables, the forecast, the last price of time."""

from __future__ import annotations

from collections.abc import Iterable

from router.cascades import Cascades
from router.demand import DemandClass, DemandKey
from router.family import Family
from router.fluid import Budget, Forecast, Hull, Hulls
from router.latency import LatencyModel
from router.outlook import Ahead, Outlook, kind_of
from router.request import NEVER
from router.slots import MOST_AHEAD_S
from router.view import Lane, View
from router.worth import Table

FORECAST_S = 0.02
"""The forecast is read this often: rates a tenth of a second old change nothing (our routing study)."""
SHORT, LONG = 0.1, 0.9
"""The shortest and the longest usual SLO are these quantiles over rows: few odd requests must not move them."""
MERGE_S = 0.05
"""Hulls whose seconds have changed a little are merged anew this often at most."""
LOOK_S = 0.01
"""Whether tables are out of date is looked at this often."""
MOST_MERGES = 8
"""Tables whose hulls are merged anew at one look, and tables that are looked at for it: no decision waits for all."""
MOST_REFRESHES = 4
MOST_KINDS = 512
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
        self.load = 0.0
        """Seconds that a second's expected rows take at their cheapest, over those of all slots."""
        self._follow = follow
        self._cascades: dict[str, Cascades] = {}
        self._tables: dict[tuple[str, int], Table] = {}
        self._slo_s: dict[tuple[str, int], float] = {}
        self._weights: dict[str, float] = {}
        self._shares: dict[str, float] = {}
        """Weights of the families as set."""
        self._hulls = Hulls()
        self._stale: dict[tuple[str, int], None] = {}
        """Tables whose hulls are out of date, oldest first."""
        self._refreshes = MOST_REFRESHES
        self._forecast_s = self._merged_s = self._looked_s = -NEVER
        self._met = self._missed = 0
        self._unblocked: tuple[float, float] | None = None

    def table(self, family: Family, latency: LatencyModel, size_class: int, slo_s: float, now: float) -> Table:
        """The prices of a family and size class, for batches that suit its shortest usual SLO.

        Made at the first call, of which `slo_s` is the SLO as long as nothing is known of others.
        """
        table = self._tables.get((family.name, size_class))
        if table is not None and table.latency is latency and table.cascades.family is family:
            if self._refreshes and table.is_due(now):
                self._refreshes -= 1
                if table.refresh(now, self._slo_s.get((family.name, size_class))):
                    self._stale[family.name, size_class] = None
            return table
        cascades = self._cascades.get(family.name)
        if cascades is None or cascades.family is not family:
            cascades = self._cascades[family.name] = Cascades(family, follow=self._follow)
            self._shares[family.name] = family.share.weight
        table = self._tables[family.name, size_class] = Table(cascades, latency, size_class, slo_s, now)
        self._stale[family.name, size_class] = None
        return table

    def tables(self) -> tuple[Table, ...]:
        """All tables that were made and not replaced."""
        return tuple(self._tables.values())

    def adopt(self, family: str, tables: Iterable[Table]) -> None:
        """The family has changed: these are its tables from now on, if any."""
        self._tables = {name: table for name, table in self._tables.items() if name[0] != family}
        self._cascades.pop(family, None)
        self._shares.pop(family, None)
        for table in tables:
            self._tables[family, table.size_class] = table
            self._cascades[family] = table.cascades
            self._shares[family] = table.cascades.family.share.weight
        hulls, self._hulls = self._hulls, Hulls()
        for kind, hull in hulls.of.items():
            if kind.family != family:
                self._hulls.put(kind, hull)
        self._stale = {name: None for name in self._stale if name[0] != family}
        # What is forecast may name variants that are gone.
        self._forecast_s = -NEVER

    def table_of(self, lane: Lane, now: float) -> Table:
        """The prices of a lane's rows."""
        return self.table(lane.family, lane.latency, lane.key.size_class, lane.items[0].slo_s, now)

    def weight(self, family: str) -> float:
        """What a family's quality counts, as set and as advised; never nothing, so that its price of time exists."""
        return max(self._shares.get(family, 1.0) * self._weights.get(family, 1.0), 1e-6)

    def look(self, view: View, lanes: tuple[Lane, ...], lane: Lane | None, budget: Budget, now: float) -> Outlook:
        """Look at the machine as it is now; `lanes` are those whose rows can still be in time, `lane` has the turn."""
        weights = dict(view.hints.weights) if view.hints is not None else {}
        if weights != self._weights:
            self._weights = weights
            for kind in self._hulls.of:
                self._merge(kind)
        self.learn(view)
        self._refreshes = MOST_REFRESHES
        if now - self._looked_s >= LOOK_S:
            self._looked_s = now
            for some in (*lanes, *view.kept):
                self.table_of(some, now)
        if now - self._forecast_s >= FORECAST_S:
            self._read(view, lanes, now)
        for some in lanes:
            kind = kind_of(some)
            if kind not in self._hulls.of:
                self.table_of(some, now)
                self._merge(kind)
        if self._stale and now - self._merged_s >= MERGE_S:
            self._merged_s = now
            self._freshen()
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
        return self._hulls.of[kind].given(price)

    def unblocked_s(self, spare: float) -> float:
        """How long the last free slot may be taken without dooming who arrives meanwhile; infinite where none will.

        A share `spare` of each SLO is to stay clear.
        """
        if self._unblocked is None or self._unblocked[0] != spare:
            per_s = self.forecast.per_s
            waits = [((1.0 - spare) * slo_s - row_s) / (1.0 + per_s * row_s) for slo_s, row_s in self.rows_to_come]
            self._unblocked = spare, min(waits, default=NEVER) if per_s > 0.0 else NEVER
        return self._unblocked[1]

    def short_turn_s(self, share: float, slo_s: float) -> float:
        """How long rows with that SLO may take a slot in overload, so that those with shorter ones find time meanwhile.

        Who arrives waits for `share` of its SLO at most, and for a batch that was decided ahead, too. Infinite while
        there is time for all, and where no shorter SLO is expected; negative where the shortest is too short for that.
        """
        if self.load <= 1.0:
            return NEVER
        waits = (share * shorter_s - 2.0 * row_s for shorter_s, row_s in self.rows_to_come if shorter_s < slo_s)
        return min(waits, default=NEVER) - MOST_AHEAD_S

    def _read(self, view: View, lanes: tuple[Lane, ...], now: float) -> None:
        """Read the forecast."""
        self._forecast_s, self._unblocked = now, None
        classes = [
            known for known in view.demand.classes(now) if (known.key.family, known.key.size_class) in self._tables
        ]
        self.forecast = Forecast(classes)
        own: dict[tuple[str, int], list[DemandClass]] = {}
        hulls = self._hulls
        if len(hulls.of) > MOST_KINDS:
            hulls = self._hulls = Hulls()
        for known in self.forecast.classes:
            if known.key not in hulls.of:
                self._merge(known.key)
            own.setdefault((known.key.family, known.key.size_class), []).append(known)
        self._slo_s = {
            name: some[0].slo_s if len(some) == 1 else Forecast(some).usual_slo_s(SHORT) for name, some in own.items()
        }
        waiting = [lane.items[0].slo_s for lane in lanes]
        if classes:
            self.shortest_s = self.forecast.usual_slo_s(SHORT)
            waiting.append(self.forecast.usual_slo_s(LONG))
        else:
            self.shortest_s = min(waiting, default=0.1)
        self.longest_s = max(waiting, default=0.1)
        self.rows_to_come = [(known.slo_s, self._row_s(known)) for known in classes if known.slo_s >= self.shortest_s]
        asked_s = [known.rate_per_s * self._row_s(known) for known in classes]
        self.load = sum(asked_s) / view.slots

    def _row_s(self, known: DemandClass) -> float:
        """Likely seconds of an expected row at its cheapest."""
        return self._tables[known.key.family, known.key.size_class].row_s(known.key.lowest)

    def _freshen(self) -> None:
        """Bring some of the hulls up to date whose seconds have changed."""
        for _ in range(min(MOST_MERGES, len(self._stale))):
            name = next(iter(self._stale))
            del self._stale[name]
            for kind in [kind for kind in self._hulls.of if (kind.family, kind.size_class) == name]:
                self._merge(kind)

    def _merge(self, kind: DemandKey) -> None:
        table = self._tables[kind.family, kind.size_class]
        cost, quality = table.hull(kind.lowest, pinned=kind.pinned >= 0)
        quality = self.weight(kind.family) * quality
        self._hulls.put(kind, Hull(tuple((table.scale * cost).tolist()), tuple(quality.tolist())))
