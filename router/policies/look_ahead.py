"""Look-ahead: each batch is weighed against what its time would be worth to everybody else.

Source: our routing study (fluid look-ahead, cascades as operating points, staged exits). In order:

1. Rows that even the cheapest allowed variant cannot answer in time are late. Kept answers that no better variant can
   replace in time go out.
2. The fluid look-ahead (`router.fluid`) finds the horizon with the least time per row, over the queue and expected
   arrivals, and with it the price of time.
3. The lane with the earliest deadline runs next. Of all (variant, batch) of its first rows that leave everybody behind
   them feasible with time to spare, the one runs that is worth most: the quality of its rows, less what they were
   allotted and the price of its time. Time is valued by the line through its price (our routing study: 0.1 to 0.3
   points less than by the whole curve).
4. Where none does: `SlackFraction`, in batches that leave time for those with the shortest SLOs, if that costs no time.
5. Kept rows whose expected gain is above the price of the time that a better variant takes compete with 3 as a batch of
   their own; they never make a fresh row late.

Where batches take hardly longer than this rule itself, `SlackFraction` decides: thought would cost more than it saves.
In the study that was where a decision costs more than 0.6 of the smallest latency of a family whose latencies span 1 to
10; many families span more, so the smallest counts as no less than a tenth of the largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from typing import NamedTuple

from router.copying import by_fields
from router.family import Family
from router.fluid import Budget
from router.latency import LatencyModel
from router.memory import Memory
from router.outlook import Outlook, kind_of
from router.policies.batching import background, best_rung, earliest, reason_for
from router.policies.slack_fraction import SlackFraction
from router.request import NEVER, Item
from router.triage import quickest_of, triage, triage_kept
from router.view import Decision, Lane, Plan, View
from router.words import Reason

RETRY_S = 0.002
"""Kept rows that are not worth their time now may be a little later, when the demand has faded."""
MOST_LANES = 32
"""Lanes that are looked at, those with the most urgent heads; the cost of a look must not be the callers' to choose."""
USUAL_SLO_S = 0.1
"""Tables are made for this SLO before any request has come."""
TURN = 0.5
"""In overload, who comes while the last slot is taken waits for no more than this share of its SLO, as far as `DEARER`
lets it."""
DEARER = 1.1
"""For that, rows may take so many times as long as in an economical batch. With none of it, a loud family's batches of
30 ms cost others with an SLO of 30 ms theirs; with more, fewer rows are answered (`docs/log.md`)."""
BATCHES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64)


class Better(NamedTuple):
    """A batch of kept rows, and what it adds."""

    plan: Plan
    worth: float


class Choice(NamedTuple):
    """A variant (index), a number of rows, and what such a batch is worth."""

    variant: int
    rows: int
    worth: float


@dataclass(frozen=True, slots=True)
class LookAhead:
    """FLUID: the look-ahead without cascades; with `cascades`, the part of CASC that decides on batches.

    `decision_s` is what a decision costs on this machine, seconds. A batch leaves `spare` of the SLO clear before every
    deadline as long as some choice does: for what no profile knows of, the event loop before all.
    """

    cascades: bool = False
    decision_s: float = 60e-6
    spare: float = 0.2
    budget: Budget = field(default_factory=Budget)
    simple: SlackFraction = field(default_factory=SlackFraction)

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return by_fields(self)

    def prepare(self, families: Sequence[tuple[Family, LatencyModel]]) -> Memory:
        """See `router.view.PreparedPolicy`."""
        memory = Memory(follow=self.cascades)
        for family, latency in families:
            for size_class in range(len(family.sizes)):
                memory.table(family, latency, size_class, USUAL_SLO_S, -NEVER)
        return memory

    def adopt(self, state: object, family: str, prepared: object | None) -> Memory:
        """See `router.view.PreparedPolicy`."""
        memory = state if isinstance(state, Memory) else Memory(follow=self.cascades)
        memory.adopt(family, prepared.tables() if isinstance(prepared, Memory) else ())
        return memory

    def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
        """See `router.view.Policy`."""
        memory = state if isinstance(state, Memory) else Memory(follow=self.cascades)
        lanes, late, wake_at = triage(view.lanes, now, quickest_of(view))
        if len(lanes) > MOST_LANES:
            lanes = tuple(nsmallest(MOST_LANES, lanes, key=lambda lane: lane.items[0]))
        settled, settle_at = triage_kept(view.kept, now, view.reply_margin_s)
        if len(view.kept) > MOST_LANES:
            view = view._replace(kept=tuple(nsmallest(MOST_LANES, view.kept, key=lambda lane: lane.items[0])))
        wake_at = min(wake_at, settle_at)
        if late or settled or not view.free_slots:
            return memory, Decision(late, None, wake_at, settled)
        lane = earliest(lanes)
        if lane is None and not view.kept:
            return memory, Decision((), background(view, now), wake_at)
        if lane is not None and self.is_quick(lane.latency, lane.key.lowest, best_rung(lane), lane.key.size_class):
            return memory, self._simply(view, lane, lanes, wake_at, now)
        outlook = memory.look(view, lanes, lane, self.budget, now)
        plan, worth = None, 0.0
        unblocked_s = self._unblocked_s(memory, view, now)
        if lane is not None:
            choice = self._best(memory, outlook, lane, unblocked_s, now)
            if choice is None:
                turn_s = memory.short_turn_s(TURN, lane.items[0].slo_s)
                return memory, self._simply(view, lane, lanes, wake_at, now, turn_s)
            plan, worth = self._plan(view, lane, choice), choice.worth
        better = self._better(memory, outlook, view, unblocked_s, max(worth, 0.0), now)
        hidden = self._hiding(memory, view, now)
        if hidden:
            return memory, Decision((), None, wake_at, hidden)
        if better is None and plan is None:
            return memory, Decision((), background(view, now), min(wake_at, now + RETRY_S))
        if better is not None:
            return memory, Decision((), better.plan, wake_at, worth=better.worth)
        return memory, Decision((), plan, wake_at, worth=worth)

    def _simply(
        self, view: View, lane: Lane, lanes: tuple[Lane, ...], wake_at: float, now: float, turn_s: float = NEVER
    ) -> Decision:
        """Step 4. The last slot is held for `turn_s` at most, or for as few rows as are nearly as cheap as can be.

        With fewer rows in a batch overload gets worse, and there may be no end to it.
        """
        tight, plan = self.simple.choose(view, lane, lanes, now)
        if plan is not None and len(view.free_slots) == 1 and turn_s < min(view.busy_until_s, default=NEVER) - now:
            latency, size_class = plan.lane.latency, plan.lane.key.size_class
            rows = max(1, latency.largest_batch_within(plan.variant, size_class, turn_s, len(plan.items)))
            economical = latency.economical_batch[plan.variant][size_class]
            dearer = DEARER if turn_s > 0.0 else 1.0
            each_s = dearer * latency.planned_s(plan.variant, economical, size_class) / economical
            while rows < economical and latency.planned_s(plan.variant, rows, size_class) > rows * each_s:
                rows += 1
            plan = plan._replace(items=plan.items[:rows])
        return Decision(tight, plan, wake_at)

    def is_quick(self, latency: LatencyModel, lowest: int, best: int, size_class: int) -> bool:
        """Whether rows that variants `lowest` to `best` may answer take hardly longer than this rule."""
        least_s = latency.planned_run_s(lowest, 1, size_class)
        most_s = latency.planned_run_s(best, 1, size_class)
        return 0.6 * max(least_s, 0.1 * most_s) < self.decision_s

    def _best(self, memory: Memory, outlook: Outlook, lane: Lane, unblocked_s: float, now: float) -> Choice | None:
        """Step 3: the choice that runs; none where step 4 decides."""
        head, latency, size_class = lane.items[0], lane.latency, lane.key.size_class
        weight, kind = memory.weight(lane.key.family), kind_of(lane)
        table = memory.table_of(lane, now)
        at = table.index(memory.price / weight)
        price = weight * table.price(at)
        given_s, given = memory.given(kind, price)
        # Whoever cannot wait for even this is doomed whatever runs: the short rule would hold the slot for longer.
        least_s = latency.planned_s(lane.key.lowest, 1, size_class)
        longest_s = head.deadline_s - now - latency.slip_s - self.spare * head.slo_s
        longest_s = min(longest_s, max(unblocked_s, least_s))
        spare_s = self.spare * memory.shortest_s
        most = min(len(lane.items), lane.family.max_batch)
        sizes = [rows for rows in BATCHES if rows < most] + [most]
        latest_s: dict[int, float] = {}
        calm, overhead_s = latency.calm, latency.overhead_s
        best: Choice | None = None
        highest = -NEVER
        for variant, quality, later_s in table.offers(kind, at):
            each = weight * quality - given + price * (given_s - later_s)
            medians, factor = latency.planned_by_rows(variant, size_class)
            for rows in sizes:
                run_s = factor * medians[rows]
                seconds = run_s + overhead_s
                if seconds > longest_s:
                    break
                worth = rows * each - price * (run_s * calm + overhead_s)
                if worth <= highest:
                    continue
                if rows not in latest_s:
                    latest_s[rows] = outlook.latest_start_s(rows) - spare_s
                if seconds <= latest_s[rows]:
                    best, highest = Choice(variant, rows, worth), worth
        return best

    def _unblocked_s(self, memory: Memory, view: View, now: float) -> float:
        """How long a slot may be taken without dooming who arrives meanwhile.

        Infinite where none will, and where another slot is free for them.
        """
        alone_s = NEVER if len(view.free_slots) > 1 else memory.unblocked_s(self.spare)
        if alone_s == NEVER:
            return NEVER
        free_s = min(view.busy_until_s, default=NEVER) - now
        return NEVER if free_s <= alone_s else alone_s

    def _plan(self, view: View, lane: Lane, choice: Choice) -> Plan:
        variant, reason = choice.variant, Reason.BEST_VALUE
        if variant == lane.family.ladder[-1]:
            reason = Reason.ONLY_VARIANT if lane.key.lowest == variant else Reason.MOST_ACCURATE
        return Plan(view.free_slots[0], lane, variant, lane.items[: choice.rows], reason_for(lane, reason))

    def _hiding(self, memory: Memory, view: View, now: float) -> tuple[tuple[Lane, Item], ...]:
        """Kept rows that are not worth their time now and hide others, of lanes longer than what is seen of them."""
        found: list[tuple[Lane, Item]] = []
        for lane in view.kept:
            if lane.depth > len(lane.items):
                table = memory.table_of(lane, now)
                index = table.index(memory.price / memory.weight(lane.key.family))
                below = table.prices.go[index, lane.family.ladder.index(lane.key.at)].max()
                found += [(lane, item) for item in lane.items if item.confidence >= below]
        return tuple(found)

    def _better(
        self, memory: Memory, outlook: Outlook, view: View, unblocked_s: float, beat: float, now: float
    ) -> Better | None:
        """Step 5: the batch of kept rows that adds more than `beat`, if there is one."""
        best: Better | None = None
        latest_s = min(outlook.latest_start_s() - self.spare * memory.shortest_s, unblocked_s)
        for lane in view.kept:
            ladder, at = lane.family.ladder, lane.key.at
            table = memory.table_of(lane, now)
            weight = memory.weight(lane.key.family)
            index, rung = table.index(memory.price / weight), ladder.index(at)
            limits = table.prices.go[index, rung].tolist()
            margin_s = view.reply_margin_s + lane.latency.slip_s
            for other in range(rung + 1, len(ladder)):
                below = limits[other]
                if below <= 0.0:
                    continue
                by_s = now + margin_s + table.step_s(at, ladder[other], 1)
                items = [item for item in lane.items if item.confidence < below and item.deadline_s > by_s]
                size = min(len(items), lane.family.max_batch)
                if not size:
                    continue
                within_s = min(latest_s, items[0].deadline_s - margin_s - now)
                while size and table.step_s(at, ladder[other], size) > within_s:
                    size -= 1
                if not size:
                    continue
                gain = table.prices.gain[index, rung, other].tolist()
                gained = sum([gain[table.cascades.bin_of(rung, item.confidence)] for item in items[:size]])
                worth = weight * gained - memory.price * table.step_likely_s(at, ladder[other], size)
                if worth > beat:
                    beat = worth
                    plan = Plan(view.free_slots[0], lane, ladder[other], tuple(items[:size]), Reason.ESCALATED)
                    best = Better(plan, worth)
        return best
