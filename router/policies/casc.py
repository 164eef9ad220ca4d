"""CASC: the look-ahead with cascades. An unsure answer of a small variant is kept, and given again by a better one.

Source: our routing study (fluid look-ahead, cascades as operating points, staged exits). Batches are chosen by
`router.policies.look_ahead`, which counts what escalations will take and give, and runs them when they are worth more
than fresh rows. An answer is kept if, at the price of time of the last look, some better variant would be worth its
time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from router.copying import by_fields
from router.family import Family
from router.latency import LatencyModel
from router.memory import Memory
from router.policies.look_ahead import LookAhead
from router.request import Item
from router.view import Decision, View


@dataclass(frozen=True, slots=True)
class Casc:
    """The default policy; `rule` holds its parameters."""

    rule: LookAhead = field(default_factory=lambda: LookAhead(cascades=True))

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return by_fields(self)

    def prepare(self, families: Sequence[tuple[Family, LatencyModel]]) -> Memory:
        """See `router.view.PreparedPolicy`."""
        return self.rule.prepare(families)

    def adopt(self, state: object, family: str, prepared: object | None) -> Memory:
        """See `router.view.PreparedPolicy`."""
        return self.rule.adopt(state, family, prepared)

    def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
        """See `router.view.Policy`."""
        return self.rule.decide(state, view, now)

    def keeps(self, state: object, family: Family, latency: LatencyModel, item: Item, now: float) -> bool:
        """See `router.view.CascadePolicy`."""
        if not isinstance(state, Memory) or item.at not in family.ladder:
            return False
        if self.rule.is_quick(latency, item.lowest, family.ladder[-1], item.size_class):
            return False
        table = state.table(family, latency, item.size_class, item.slo_s, now)
        price = state.price / state.weight(family.name)
        return bool(item.confidence < table.prices.keep[table.index(price), family.ladder.index(item.at)])
