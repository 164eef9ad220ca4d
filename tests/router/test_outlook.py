"""One look at the machine: how long slots may be away, and what a batch leaves of the time of others."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.backlog import LaneKey
from router.contract import NEVER, Family, Hints, Item, Request, VariantProfile
from router.demand import Demand
from router.fluid import Budget
from router.latency import LatencyModel, table
from router.memory import SATURATED_S, Memory
from router.outlook import Outlook, kind_of
from router.view import Lane, View
from tests.queued import demand, lane, view

SIZED = Family(
    "s",
    (
        VariantProfile("quick", 0.6, table((1, 8), (0.001, 0.008), (0.002, 0.016))),
        VariantProfile("exact", 0.9, table((1, 8), (0.004, 0.032), (0.008, 0.064))),
    ),
    sizes=(16, 32),
    max_batch=8,
)


def sized(slacks_s: list[float], size_class: int = 0, lowest: int = 0, hidden: int = 0, slo_s: float = 0.1) -> Lane:
    """Rows with so much time left at 0.0; the last `hidden` are beyond the look-ahead."""
    items = tuple(
        Item(0, slack_s, number, number, 0, size_class, lowest, 0.0, slo_s)
        for number, slack_s in enumerate(sorted(slacks_s))
    )
    seen = items[: len(items) - hidden]
    key = LaneKey("s", -1, lowest, size_class, 0, False)
    return Lane(key, SIZED, LatencyModel(SIZED, 1.0), len(items), seen, items[-1].deadline_s)


def look(given_view: View, *, memory: Memory | None = None, now: float = 0.0, budget: Budget | None = None) -> Outlook:
    """What a policy that follows cascades sees."""
    return (memory or Memory(follow=True)).look(given_view, given_view.lanes, budget or Budget(), now)


def latest_start_s(lanes: tuple[Lane, ...], taken: Lane | None, rows: int, slots: int) -> float:
    """Of all rows that remain: the least of deadline less the cheapest work of everything due until then."""
    due: list[tuple[float, int, float, float]] = []
    for order, some in enumerate(lanes):
        most = some.family.max_batch
        each_s = some.latency.planned_s(some.key.lowest, most, some.key.size_class) / most / slots
        due += [(item.deadline_s, order, 1.0, each_s) for item in some.items[rows if some is taken else 0 :]]
        if some.depth > len(some.items):
            due.append((some.last_deadline_s, order, float(some.depth - len(some.items)), each_s))
    latest, work_s = math.inf, 0.0
    for deadline_s, _, count, each_s in sorted(due):
        work_s += count * each_s
        latest = min(latest, deadline_s - work_s)
    return latest


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(1, 60), min_size=1, max_size=10), st.integers(0, 1), st.integers(0, 1), st.booleans()
        ),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 3),
)
def test_the_latest_start_is_that_of_what_remains(queues: list[tuple[list[int], int, int, bool]], slots: int) -> None:
    """Whatever lane the first rows are taken from, however many, with and without rows beyond the look-ahead."""
    lanes = tuple(
        sized([0.004 * slack for slack in slacks], size_class, lowest, len(slacks) // 3 if hides else 0)
        for slacks, size_class, lowest, hides in queues
    )
    outlook = look(view(*lanes, slots=slots))
    assert outlook.latest_start_s() == pytest.approx(latest_start_s(lanes, None, 0, slots))
    for some in lanes:
        rows = np.arange(1, len(some.items) + 1)
        expected = [latest_start_s(lanes, some, count, slots) for count in rows.tolist()]
        assert outlook.latest_start_after(some, rows).tolist() == pytest.approx(expected)


def test_nobody_waits_for_a_slot_when_nothing_is_left() -> None:
    """With the queue taken out, or none at all, a slot may be away for ever."""
    alone = sized([0.05, 0.06])
    assert [NEVER] == look(view(alone)).latest_start_after(alone, np.array([2])).tolist()
    only_kept = look(view(kept=(lane([0.05], at=0),)))
    assert NEVER == only_kept.latest_start_s()


def test_the_cheapest_work_is_shared_by_all_slots() -> None:
    """Six rows of 1 ms and two of 2 ms, due in 50 ms: 10 ms on one slot, 5 ms on two."""
    lanes = sized([0.05] * 6, hidden=2), sized([0.05] * 2, size_class=1)
    for slots, expected_s in ((1, 0.040), (2, 0.045)):
        assert look(view(*lanes, slots=slots)).latest_start_s() == pytest.approx(expected_s)


def test_time_has_no_price_in_an_idle_machine_and_a_high_one_in_a_full_queue() -> None:
    """One row in 100 ms can be given everything; forty cannot."""
    prices = [look(view(lane([0.1] * rows))).price for rows in (1, 8, 16, 40)]
    assert prices[0] == 0.0
    assert prices == sorted(prices)
    assert prices[-1] > prices[1] > 0.0


def test_expected_arrivals_raise_the_price() -> None:
    """The same queue, and two hundred more rows to come."""
    quiet, busy = (look(view(lane([0.1] * 4), demand=demand(rows))).price for rows in (0, 200))
    assert busy > quiet


def test_a_busy_slot_leaves_less_time_than_a_free_one_and_more_than_none() -> None:
    """Another slot that is free at half of the horizon lies between."""
    queue = lane([0.1] * 30)
    both, half, one = (
        look(view(queue)._replace(free_slots=free, busy_until_s=busy)).planned.near.budget_s
        for free, busy in (((0, 1), ()), ((0,), (0.05,)), ((0,), ()))
    )
    assert both > half > one


def gains(outlook: Outlook, some: Lane, most: int) -> dict[tuple[int, int], float]:
    """What each variant and batch of the lane's first rows adds."""
    memory_table = outlook._memory.table_of(some, 0.0)
    choices = memory_table.choices(kind_of(some), most, outlook.price)
    value = outlook.gain(some, choices, choices.rows, outlook.planned, float(choices.seconds.max()))
    return {
        (int(variant), int(rows)): float(value[at, batch])
        for at, variant in enumerate(choices.variants)
        for batch, rows in enumerate(choices.rows)
    }


def test_with_time_to_spare_the_best_variant_adds_most() -> None:
    """What a single row with all the time adds is the quality of its answer, less what the plan had given it."""
    alone = lane([0.1])
    value = gains(look(view(alone)), alone, 1)
    assert value[2, 1] == max(value.values())
    assert value[2, 1] == pytest.approx(0.0)


def test_in_a_full_queue_large_cheap_batches_add_most() -> None:
    """Forty rows in 60 ms: the best variant alone would cost the others more than it adds."""
    full = lane([0.06] * 40)
    value = gains(look(view(full)), full, 8)
    assert value[0, 8] == max(value.values())
    assert value[2, 1] < 0.0


def test_rows_behind_the_horizon_are_weighed_with_the_time_behind_it() -> None:
    """Sixteen rows are due soon, four much later: giving up one of those frees time on the second curve."""
    queue = lane([0.03] * 16 + [1.0] * 4, slo_s=1.0)
    outlook = look(view(queue))
    assert outlook.planned.horizon_s == pytest.approx(0.03)
    assert outlook.planned.later.price < outlook.price
    choices = outlook._memory.table_of(queue, 0.0).choices(kind_of(queue), 1, outlook.price)
    gone = np.array([[16], [17], [18]])
    value = outlook.gain(queue, choices, gone, outlook.planned, 1.0)
    # The second and third choice free the time of one and two of the patient rows, and forgo what it was worth.
    soon = outlook.gain(queue, choices, np.array([16]), outlook.planned, 1.0)
    allotted_s, allotted = (
        float(taken[outlook.planned.later.segments, 0])
        for taken in (outlook._segments.taken_s, outlook._segments.taken)
    )
    freed = outlook.planned.later.change(np.array([0.0, allotted_s, 2 * allotted_s])) - allotted * np.arange(3)
    assert (value - soon).ravel().tolist() == pytest.approx(freed.tolist())


def test_taking_a_slot_costs_nothing_only_where_time_is_free() -> None:
    """More seconds never cost less; with a full queue every second costs about the price."""
    idle, full = look(view(kept=(lane([0.05], at=0),))), look(view(lane([0.1] * 20)))
    assert idle.cost_of(0.01) == 0.0
    costs = [full.cost_of(seconds) for seconds in (0.0, 0.001, 0.01, 0.1)]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] == pytest.approx(0.0, abs=1e-9)
    assert costs[1] == pytest.approx(-0.001 * full.price, rel=0.01)


def test_a_long_batch_dooms_arrivals_with_short_slos() -> None:
    """Half of the rows to come have 20 ms: with the only slot away for 60 ms some of them are lost."""
    counted = Demand()
    for number in range(100):
        counted.observe(Request(number, "f", (0,), 0.0, 0.2 if number % 2 else 0.02, NEVER), 0, 0.0)
    queue = lane([0.2])
    one, two = (look(view(queue, demand=counted, slots=slots)) for slots in (1, 2))
    seconds = np.array([[0.001, 0.060]])
    short, long = one._blocked(seconds, 0.06)[0]
    assert long > short
    assert not two._blocked(seconds, 0.06).any()


def expecting(*size_classes: int, slo_s: float = 0.02) -> Demand:
    """One row of each came at 0.0."""
    counted = Demand()
    for number, size_class in enumerate(size_classes):
        counted.observe(Request(number, "s", (size_class,), 0.0, slo_s, NEVER), 0, 0.0)
    return counted


def test_arrivals_are_doomed_by_what_their_own_rows_take() -> None:
    """Nobody waits; with the only slot away for 17 ms, of 20, rows of 1 ms can still be answered, those of 2 cannot."""
    knows_both = tuple(
        some._replace(key=some.key._replace(at=0)) for some in (sized([0.09]), sized([0.09], size_class=1))
    )
    away_s = np.array([[0.017]])
    short, both = expecting(0), expecting(0, 1)
    assert not look(view(kept=knows_both, demand=short))._blocked(away_s, 0.017).any()
    first, second = both.classes(0.0)
    needed_s = 0.017 + 0.002 * (1.0 + 0.017 * (first.rate_per_s + second.rate_per_s))
    expected = second.rate_per_s * (needed_s - 0.02)
    assert expected > 0.0
    assert look(view(kept=knows_both, demand=both))._blocked(away_s, 0.017)[0, 0] == pytest.approx(expected)


def test_the_queue_does_not_change_who_is_doomed_to_come() -> None:
    """Whoever waits at the head, expected rows take their own time."""
    heads = sized([0.09] * 3), sized([0.09] * 3, size_class=1)
    found = [
        look(view(*lanes, demand=expecting(0, 1)))._blocked(np.array([[0.018]]), 0.018)[0, 0]
        for lanes in (heads, heads[::-1])
    ]
    assert found[0] > 0.0
    assert found[0] == pytest.approx(found[1])


def first_s(memory: Memory, some: Lane, now: float) -> list[float]:
    """What the table of a lane plans for a first answer of each variant."""
    found: list[float] = memory.table_of(some, now).prices.first_s.tolist()
    return found


@pytest.mark.parametrize(
    ("tight", "patient", "expected_s"), [(50, 0, 0.012), (50, 50, 0.012), (1, 99, 0.3), (0, 100, 0.3)]
)
def test_tables_follow_the_shortest_usual_slo(tight: int, patient: int, expected_s: float) -> None:
    """Made for 100 ms; what follows asks for 12 or 300. One in a hundred is not usual."""
    memory, counted = Memory(follow=True), Demand()
    look(view(sized([0.1])), memory=memory)
    for number in range(tight + patient):
        slo_s = 0.012 if number < tight else 0.3
        counted.observe(Request(number, "s", (0,), 1.0, 1.0 + slo_s, NEVER), 0, 1.0)
    some = sized([1.3], slo_s=0.3)
    for now in (1.0, 2.0):
        look(view(some, demand=counted), memory=memory, now=now)
    made_for = Memory(follow=True)
    assert first_s(made_for, sized([1.3], slo_s=expected_s), 0.0) == pytest.approx(first_s(memory, some, 2.0))


def test_one_request_with_a_long_slo_does_not_stretch_the_look() -> None:
    """Of a thousand requests one asked for ten seconds: once it is answered, nobody plans that far."""
    budgets = []
    for odd_s in (0.1, 10.0):
        counted = Demand()
        for number in range(1000):
            now = number / 500.0
            slo_s = odd_s if number == 500 else 0.1
            counted.observe(Request(number, "f", (0,), now, now + slo_s, NEVER), 0, now)
        planned = look(view(kept=(lane([2.05], at=0),), demand=counted), now=2.0).planned
        budgets.append(planned.near.budget_s)
    assert budgets[0] == budgets[1]


def test_two_families_have_one_price() -> None:
    """Time goes where it adds most, so both see the same price, and a family that counts twice gets more of it."""
    both = view(lane([0.1] * 10), sized([0.1] * 10), demand=Demand())
    memory = Memory(follow=True)
    outlook = look(both, memory=memory)
    assert {0, 1} == set(memory.kinds.values())
    taken_s = outlook._segments.taken_s[outlook.planned.near.segments]
    hinted = Memory(follow=True)
    weighty = look(both._replace(hints=Hints(0.0, weights={"s": 4.0})), memory=hinted)
    more_s = weighty._segments.taken_s[weighty.planned.near.segments]
    number = hinted.kinds[kind_of(both.lanes[1])]
    assert more_s[number] >= taken_s[number]
    assert more_s[1 - number] <= taken_s[1 - number]
    assert weighty.weight(both.lanes[1]) == 4.0


@pytest.mark.parametrize(
    ("variants", "rows", "saturated"), [(2, 1, False), (2, 200, True), (1, 1, False), (1, 200, False)]
)
def test_saturated_is_a_machine_without_time_for_better_answers(variants: int, rows: int, saturated: bool) -> None:
    """One row leaves time for `exact`, 200 do not; where there is nothing better, nobody lacks time for it."""
    some, memory = sized([0.1] * rows), Memory(follow=True)
    family = replace(SIZED, variants=SIZED.variants[:variants])
    look(view(some._replace(family=family, latency=LatencyModel(family, 1.0))), memory=memory)
    assert saturated == memory.is_saturated(0.0)
    assert not memory.is_saturated(SATURATED_S)


def test_looks_are_repeatable() -> None:
    """The same state gives the same numbers, whatever the memory has seen before."""
    fresh, used = Memory(follow=True), Memory(follow=True)
    given_view = view(lane([0.05] * 9 + [0.09] * 3), sized([0.07] * 5, 1), demand=demand(20))
    look(view(lane([0.02] * 3), demand=given_view.demand), memory=used, now=-1.0)
    first, second = look(given_view, memory=fresh), look(given_view, memory=used)
    assert first.price == pytest.approx(second.price)
    assert gains(first, given_view.lanes[0], 8) == pytest.approx(gains(second, given_view.lanes[0], 8))


def test_the_forecast_forgets_kinds_when_there_are_too_many() -> None:
    """Three hundred pins and floors later the numbering starts again and still holds for what is asked."""
    memory = Memory(follow=True)
    for number in range(300):
        memory.kinds[kind_of(lane([0.1], lowest=0))._replace(size_class=0, lowest=0, pinned=-2 - number)] = number
    outlook = look(view(lane([0.1] * 3)), memory=memory)
    assert len(memory.kinds) == 1
    assert math.isfinite(outlook.price)


def test_a_family_that_is_always_wrong_can_be_looked_at() -> None:
    """A quality of nothing has no slope; its rows are worth nothing, and time is free."""
    useless = Family("s", (VariantProfile("none", 0.0, table((1, 8), (0.001, 0.008))),), max_batch=8)
    some = sized([0.1])._replace(family=useless, latency=LatencyModel(useless, 1.0))
    assert look(view(some)).price <= 1e-3


def test_a_family_that_counts_nothing_can_be_looked_at() -> None:
    """A weight of zero leaves a family a price of its own."""
    memory = Memory(follow=True)
    outlook = look(view(lane([0.1] * 30))._replace(hints=Hints(0.0, weights={"f": 0.0})), memory=memory)
    assert math.isfinite(outlook.price / memory.weight("f"))
