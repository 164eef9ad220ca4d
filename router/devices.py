"""Slots of several devices: any rule, asked for one device after the other, and which of its answers is taken.

A policy decides for slots that are alike. Here it is shown one device at a time, as if the machine were made of that
device: its free slots, its latencies, all other slots as so much or so little of one of its own. What the rule
remembers it remembers for each device, in that device's seconds. So rule, price of time and objective are the same on
all of them, and what plans are worth can be compared: the one that is worth most is taken, on the faster device where
two are worth the same.

- A row is late only when every device calls it late. One that is late for some device is out of that one's sight, and
  the next ones of its lane come into it: a slow device neither takes nor refuses what a faster one can still do.
- Where the fastest device that has a plan has not weighed it, it is taken: rules that do not weigh fill that first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, cast

from router.backlog import LaneKey
from router.contract import Slot
from router.family import Family
from router.latency import LatencyModel
from router.request import NEVER, Item
from router.triage import first_in_time
from router.view import CascadePolicy, Decision, Kinds, Lane, Plan, Policy, PreparedPolicy, View

ALIKE = 0.005
"""Quality by which a slower device has to be worth more: what is planned for each is not that exact."""

Found = dict[int, tuple[Lane, Item]]
"""Rows by their sequence."""
Rows = tuple[tuple[Lane, Item], ...]
States = dict[str, object]
"""What the rule remembers, by device."""


class Reach(NamedTuple):
    """What of a lane is in sight: so many `rows` from the one at that index on, 0: as many as ever."""

    first: int
    rows: int


class Asked(NamedTuple):
    """What the rule wants of one device, and the rows that it called late, or settled, before that."""

    decision: Decision
    late: Found
    settled: Found


def across(policy: Policy, slots: Sequence[Slot]) -> Policy:
    """The policy for these slots: itself where all are of one device."""
    names = tuple(dict.fromkeys(slot.device for slot in slots))
    if len(names) < 2:
        return policy
    return CascadesAcrossDevices(policy, names) if isinstance(policy, CascadePolicy) else AcrossDevices(policy, names)


def speeds(slots: Sequence[Slot], latencies: Iterable[LatencyModel]) -> dict[str, float] | None:
    """How fast each device is against the first one, over all families; none where there is one device alone."""
    names = dict.fromkeys(slot.device for slot in slots)
    if len(names) < 2:
        return None
    models = list(latencies)
    return {name: sum(m.speed(name) for m in models) / len(models) if models else 1.0 for name in names}


@dataclass(frozen=True, slots=True)
class AcrossDevices:
    """The `rule` on slots of several devices; `names` has these."""

    rule: Policy
    names: tuple[str, ...]

    def prepare(self, families: Sequence[tuple[Family, LatencyModel]]) -> States:
        """See `router.view.PreparedPolicy`."""
        if not isinstance(self.rule, PreparedPolicy):
            return {}
        return {name: self.rule.prepare([(f, latency.on(name)) for f, latency in families]) for name in self.names}

    def adopt(self, state: object, family: str, prepared: object | None) -> States:
        """See `router.view.PreparedPolicy`."""
        if not isinstance(self.rule, PreparedPolicy):
            # What other rules remember may name variants that are gone.
            return {}
        states, tables = _states(state), _states(prepared)
        return {name: self.rule.adopt(states.get(name), family, tables.get(name)) for name in self.names}

    def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
        """See `router.view.Policy`."""
        states, kinds = _states(state), view.kinds
        assert kinds is not None, "slots of several devices have kinds"
        asked: list[Asked] = []
        best: Plan | None = None
        worth = wake_at = NEVER
        late: Rows = ()
        settled: Rows = ()
        # The fastest first, so it has what is worth the same on several.
        for place, device in enumerate(kinds.names):
            one = self._ask(states, of_device(view, kinds, device, now), device, now)
            asked.append(one)
            decision = one.decision
            wake_at = min(wake_at, decision.wake_at)
            late, settled = _of_all([one.late for one in asked]), _of_all([one.settled for one in asked])
            value = decision.worth - ALIKE * place
            if decision.plan is not None and (best is None or -NEVER < worth < value):
                best, worth = decision.plan, value
            if best is not None and worth == -NEVER and not late and not settled:
                # The rule did not weigh this, so nothing says that a slower device would do better. None of them is
                # asked, because some rules count what they plan.
                break
        if late or settled:
            return states, Decision(late, None, wake_at, settled)
        return states, Decision((), None if best is None else _whole(view, best), wake_at)

    def _ask(self, states: States, own: View, device: str, now: float) -> Asked:
        """Ask the rule for one device, until it calls no row late that it sees."""
        late: Found = {}
        settled: Found = {}
        reach: dict[LaneKey, Reach] = {}
        seen = own
        while True:
            states[device], decision = self.rule.decide(states.get(device), seen, now)
            if not decision.late and not decision.settled:
                # Earlier answers may have wanted to be asked at once, for what is in sight now.
                return Asked(decision, late, settled)
            late |= {item.sequence: (lane, item) for lane, item in decision.late}
            settled |= {item.sequence: (lane, item) for lane, item in decision.settled}
            gone = late.keys() | settled.keys()
            for lane in (*seen.lanes, *seen.kept):
                last = lane.items[-1]
                # A rule with a lazy drop may want rows that cannot be in time; it calls none late before its deadline.
                if last.sequence in gone and last.deadline_s > now and lane.depth > len(lane.items):
                    first, end = first_in_time(lane, now, own.reply_margin_s), len(lane.rows) - lane.depth
                    # A rule that wants a dearer variant has more late rows than that: it is shown ever more at once.
                    more = 2 * len(lane.items) if first <= end + len(lane.items) else 0
                    reach[lane.key] = Reach(first, more)
                elif lane.key in reach:
                    reach[lane.key] = reach[lane.key]._replace(rows=0)
            seen = without(own, gone, reach)


@dataclass(frozen=True, slots=True)
class CascadesAcrossDevices(AcrossDevices):
    """The same for a rule that may answer a row more than once."""

    def keeps(self, state: object, family: Family, latency: LatencyModel, item: Item, now: float) -> bool:
        """See `router.view.CascadePolicy`. Asked is the rule of the first device."""
        rule = cast(CascadePolicy, self.rule)
        name = self.names[0]
        return rule.keeps(_states(state).get(name), family, latency.on(name), item, now)


def of_device(view: View, kinds: Kinds, device: str, now: float) -> View:
    """The view as a rule for that device sees it; all its slots that are not free are among the others."""
    slots = [slot for slot, name in kinds.device.items() if name == device]
    free = tuple(slot for slot in view.free_slots if kinds.device[slot] == device)
    ends = [(slot, end_s) for slot, end_s in zip(view.busy_slots, view.busy_until_s, strict=True) if slot not in free]
    # As whoever starts a batch on the next of its free slots finds the others, which is what the cost is learnt with.
    crowd = kinds.crowd(free[0] if free else slots[0], [slot for slot, _ in ends if slot not in view.left])
    own = kinds.speed[slots[0]]
    elsewhere = [slot for slot in view.free_slots if slot not in free]
    ends += [(slot, now) for slot in elsewhere]

    def seen(lanes: tuple[Lane, ...]) -> tuple[Lane, ...]:
        for lane in lanes:
            lane.latency.on(device).meet(crowd)
        return tuple([lane._replace(latency=lane.latency.on(device)) for lane in lanes])

    return view._replace(
        free_slots=free,
        busy_slots=tuple([slot for slot, _ in ends]),
        busy_until_s=tuple([end_s for _, end_s in ends]),
        others=tuple([kinds.speed[slot] / own for slot, _ in ends]),
        idle=tuple([kinds.speed[slot] / own for slot in elsewhere]),
        lanes=seen(view.lanes),
        background=seen(view.background),
        kept=seen(view.kept),
    )


def without(view: View, gone: Iterable[int], reach: Mapping[LaneKey, Reach] | None = None) -> View:
    """The view without these rows, by sequence, and of each lane what is within its `reach`.

    As many of a lane are in sight as before, if so many are left; lanes without any are not there.
    """
    hidden = frozenset(gone)

    def rest(lanes: tuple[Lane, ...]) -> tuple[Lane, ...]:
        found: list[Lane] = []
        for lane in lanes:
            rows = lane.rows or lane.items
            at, most = (reach or {}).get(lane.key, Reach(0, 0))
            most = most or len(lane.items)
            items: list[Item] = []
            out = min(at, len(rows))
            for item in islice(rows, at, None):
                if len(items) == most:
                    break
                if item.sequence in hidden:
                    out += 1
                else:
                    items.append(item)
            if items:
                found.append(lane._replace(items=tuple(items), depth=lane.depth - out) if out else lane)
        return tuple(found)

    return view._replace(lanes=rest(view.lanes), background=rest(view.background), kept=rest(view.kept))


def _whole(view: View, plan: Plan) -> Plan:
    """The plan with its lane as it waits, rows that its device does not see included."""
    known = (lane for lanes in (view.lanes, view.kept, view.background) for lane in lanes)
    whole = next(lane for lane in known if lane.key == plan.lane.key)
    return plan._replace(lane=whole._replace(latency=plan.lane.latency))


def _of_all(found: Sequence[Found]) -> Rows:
    """The rows that all have found, as the first one did."""
    return tuple([row for number, row in found[0].items() if all(number in other for other in found[1:])])


def _states(state: object) -> States:
    return cast(States, state) if isinstance(state, dict) else {}
