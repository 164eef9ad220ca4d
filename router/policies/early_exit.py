"""EarlyExit: one confidence threshold; whoever is below it goes on to the next variant.

Source: early exits as Apparate (Dai et al., SOSP 2024) and E3 (Liu et al., SOSP 2024) serve them, reduced to the rule
that both start from: a fixed threshold per exit. Neither injects nor tunes exits here (Apparate), nor cuts the network
into blocks (E3); both decide without a look at the deadline or at the other work, which is the point of the baseline.

Left open, chosen here:

- the exits are the rungs of the family's ladder, one after the other; a network's stages go on from their state,
  unrelated variants start anew;
- one threshold for all exits, on the calibrated confidence;
- earliest deadline first over fresh rows and rows that go on, each in the largest batch that its head has the slack
  for; a row that has no time for the next exit leaves with the answer it has;
- families without evidence are answered by the cheapest variant.
"""

from __future__ import annotations

from dataclasses import dataclass

from router.family import Family
from router.latency import LatencyModel
from router.policies.kept import next_of_all
from router.request import Item
from router.view import Decision, Lane, View


@dataclass(frozen=True, slots=True)
class EarlyExit:
    """An answer of at least `threshold` (0 to 1) is final."""

    threshold: float = 0.8
    early_drop: bool = True

    def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
        """See `router.view.Policy`."""
        return state, next_of_all(view, now, early_drop=self.early_drop, better=_next_exit, first=_first_exit)

    def keeps(self, _state: object, family: Family, _latency: LatencyModel, item: Item, _now: float) -> bool:
        """See `router.view.CascadePolicy`."""
        return item.confidence < self.threshold and item.at < family.ladder[-1]


def _first_exit(lane: Lane) -> int:
    return lane.key.lowest


def _next_exit(lane: Lane) -> int:
    return next((rung for rung in lane.family.ladder if rung > lane.key.at), -1)
