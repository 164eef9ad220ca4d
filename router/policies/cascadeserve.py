"""CascadeServe: for each rate a gear, which is a variant or a cascade of two with a threshold.

Source: CascadeServe (Kossmann et al., 2024). Offline, gears are made for ranges of the rate: cascade, thresholds, queue
lengths that start a batch. Online, the rate of the last 100 ms picks the gear; none is given up for a slower one while
rows queue (`rate < 8 * queued`).

Left open there, or different here:

- offline is a fluid computation: of all variants, and all pairs of rungs with thresholds at twentieths of the first
  one's confidences, the gear with the best accuracy on the family's evidence whose mean seconds per row fill at most
  `load` of a slot. Longer cascades are not looked at;
- seconds per row are those of the largest batch within half of the SLO, a quarter for each of a pair; a variant that
  cannot do a single row in that is in no gear but the cheapest;
- certainty is the calibrated confidence of the answer, not the gap between the two best labels;
- batches start at once (queue length 1): every row has a deadline. Earliest deadline first over fresh and kept rows;
- rates in steps of a tenth, SLOs in steps of a quarter (the lower), latencies as they are believed now; several slots
  share the rate evenly, other families by what they cost (`windows.Windows.per_slot`);
- kept rows go on to the second variant of the gear that is in use then; where it has none better, they are settled;
- with early drop, a head that the gear's first variant cannot answer in time gets the best cheaper one that can;
- families without evidence have gears of single variants, by their measured quality.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from router.family import Evidence, Family
from router.latency import LatencyModel
from router.policies.batching import in_time
from router.policies.kept import next_of_all
from router.policies.tables import Tables, pace, slo_of, slo_step
from router.policies.windows import Windows, rate_of, rate_step
from router.request import Item
from router.triage import allowed
from router.view import Decision, Lane, View

QUANTILES = 20


class Gear(NamedTuple):
    """Rows go to variant `first`; answers less confident than `threshold` go on to `second` (-1: none)."""

    first: int
    second: int = -1
    threshold: float = 0.0


class Cascade(NamedTuple):
    """A gear that could be chosen, its accuracy, and the share of rows that go on."""

    gear: Gear
    accuracy: float
    share: float


class _State:
    __slots__ = ("cascades", "gears", "in_use", "steps", "windows")

    def __init__(self, window_s: float) -> None:
        self.windows = Windows(window_s)
        self.cascades: Tables[list[Cascade]] = Tables()
        self.gears: Tables[Gear] = Tables()
        self.in_use: dict[tuple[str, int, int], Gear] = {}
        self.steps: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class CascadeServe:
    """`window_s` is how long the rate is measured, `load` how full a gear may make a slot, `hold` the queue factor."""

    window_s: float = 0.1
    load: float = 0.8
    hold: float = 8.0
    early_drop: bool = True

    def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
        """See `router.view.Policy`."""
        known = state if isinstance(state, _State) else _State(self.window_s)
        known.windows.roll(view, now)

        def first(lane: Lane) -> int:
            if lane.key.pinned >= 0:
                return lane.key.pinned
            variant = self._gear(known, view, lane).first
            return in_time(lane, variant, now) if self.early_drop else variant

        def second(lane: Lane) -> int:
            gear = known.in_use.get((lane.key.family, lane.key.size_class, lane.key.lowest))
            return gear.second if gear is not None and gear.second > lane.key.at else -1

        return known, next_of_all(view, now, early_drop=self.early_drop, better=second, first=first)

    def keeps(self, state: object, _family: Family, _latency: LatencyModel, item: Item, _now: float) -> bool:
        """See `router.view.CascadePolicy`."""
        gear = state.in_use.get((_family.name, item.size_class, item.lowest)) if isinstance(state, _State) else None
        return gear is not None and gear.first == item.at and gear.second > item.at and item.confidence < gear.threshold

    def _gear(self, known: _State, view: View, lane: Lane) -> Gear:
        key, family = lane.key, lane.family
        rate = known.windows.per_slot(view, lane)
        step = rate_step(rate)
        held = known.steps.get(key.family, step)
        if step < held and rate * view.slots < self.hold * lane.depth:
            step = held
        known.steps[key.family] = step
        slo = slo_step(lane.items[0].slo_s)
        name = (key.family, family.revision, key.lowest)
        cascades = known.cascades.get(name, lambda: candidates(family, allowed(lane)))
        gear = known.gears.get(
            (*name, key.size_class, slo, step, pace(lane)),
            lambda: best_gear(lane, cascades, self.load / rate_of(step), slo_of(slo)),
        )
        known.in_use[key.family, key.size_class, key.lowest] = gear
        return gear


def candidates(family: Family, rungs: tuple[int, ...]) -> list[Cascade]:
    """All gears of these rungs, single variants first, cheapest first."""
    found = [Cascade(Gear(rung), family.variants[rung].quality, 0.0) for rung in rungs]
    evidence = family.evidence
    if evidence is None or not evidence.correct.shape[1]:
        return found
    found = [Cascade(Gear(rung), float(evidence.correct[rung].mean()), 0.0) for rung in rungs]
    for index, first in enumerate(rungs):
        for second in rungs[index + 1 :]:
            found += _thresholds(evidence, first, second)
    return found


def best_gear(lane: Lane, cascades: list[Cascade], budget_s: float, slo_s: float) -> Gear:
    """The most accurate gear whose rows take at most `budget_s` of a slot, else the cheapest variant alone."""
    alone = {rung: _row_s(lane, rung, -1, slo_s / 2) for rung in allowed(lane)}
    paired = {rung: _row_s(lane, rung, -1, slo_s / 4) for rung in allowed(lane)}
    best, accuracy = cascades[0].gear, -1.0
    going_on: dict[tuple[int, int], float] = {}
    for gear, reached, share in cascades:
        seconds = alone[gear.first]
        if gear.second >= 0:
            pair = (gear.first, gear.second)
            if pair not in going_on:
                going_on[pair] = _row_s(lane, gear.second, gear.first, slo_s / 4)
            seconds = paired[gear.first] + share * going_on[pair]
        if seconds <= budget_s and reached > accuracy:
            best, accuracy = gear, reached
    return best


def _thresholds(evidence: Evidence, first: int, second: int) -> list[Cascade]:
    """The cascades of one pair at the quantiles of the first one's confidence."""
    order = np.argsort(evidence.confidence[first], kind="stable")
    confidence = evidence.confidence[first][order]
    rows = len(order)
    below = np.concatenate(([0], np.cumsum(evidence.correct[second][order])))
    above = np.concatenate(([0], np.cumsum(evidence.correct[first][order])))
    found = []
    for threshold in np.unique(confidence[[rows * quantile // QUANTILES for quantile in range(1, QUANTILES)]]):
        on = int(np.searchsorted(confidence, threshold))
        accuracy = float(below[on] + above[-1] - above[on]) / rows
        found.append(Cascade(Gear(first, second, float(threshold)), accuracy, on / rows))
    return found


def _row_s(lane: Lane, variant: int, at: int, within_s: float) -> float:
    """Planned seconds per row in the largest batch within these seconds; infinite where a row alone takes longer."""
    start = lane.family.start(at, variant)
    size_class = lane.key.size_class
    for rows in range(lane.family.max_batch, 0, -1):
        seconds = lane.latency.planned_s(variant, rows, size_class, start)
        if seconds <= within_s:
            return seconds / rows
    return float("inf")
