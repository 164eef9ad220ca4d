"""One look at the machine: the price at the tightest horizon, how long slots may be away, what memory makes of it."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router.backlog import LaneKey
from router.contract import NEVER, Family, Hints, Item, Request, VariantProfile
from router.demand import Demand, DemandClass
from router.fluid import Budget, Forecast, Hull, Hulls
from router.latency import LatencyModel, table
from router.memory import FORECAST_S, LEAST_TRUST, MERGE_S, MET_GAIN, MISS_COST, MOST_KINDS, Memory
from router.outlook import FAR, MOST_POINTS, Ahead, Outlook, kind_of, points_of
from router.view import Lane, View
from router.worth import RECHECK_S
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
"""A row of `quick` takes 1 or 2 ms by its size, one of `exact` 4 or 8."""
ALL = Budget(1.0, 0.0, 0.0)
"""All the time there is."""


def sized(slacks_s: list[float], size_class: int = 0, lowest: int = 0, hidden: int = 0, slo_s: float = 0.1) -> Lane:
    """Rows with so much time left at 0.0; the last `hidden` are beyond the look-ahead."""
    items = tuple(
        Item(0, slack_s, number, number, 0, size_class, lowest, 0.0, slo_s)
        for number, slack_s in enumerate(sorted(slacks_s))
    )
    seen = items[: len(items) - hidden]
    key = LaneKey("s", -1, lowest, size_class, 0, False)
    return Lane(key, SIZED, LatencyModel(SIZED, 1.0), len(items), seen, items[-1].deadline_s)


HULLS = {
    kind_of(sized([1.0], size_class, lowest)): Hull(
        (0.0, least_s, 2.1 * least_s, 4.4 * least_s), (0.0, 0.6, 0.8 + 0.03 * size_class, 0.95)
    )
    for size_class, lowest, least_s in ((0, 0, 0.001), (1, 0, 0.002), (0, 1, 0.004), (1, 1, 0.008))
}
"""Of every kind of rows of `sized`, in seconds of their own; no two slopes are alike."""


def outlook(
    given_view: View,
    turn: Lane | None = None,
    *,
    classes: tuple[DemandClass, ...] = (),
    budget: Budget = ALL,
    slos_s: tuple[float, float] = (0.1, 0.1),
    trust: float = 1.0,
) -> Outlook:
    ahead = Ahead(Forecast(classes), Hulls(HULLS), *slos_s, trust)
    return Outlook(ahead, given_view, given_view.lanes, turn, budget, 0.0)


def queues(most_rows: int, most_lanes: int = 4) -> st.SearchStrategy[tuple[Lane, ...]]:
    """Lanes with and without rows beyond the look-ahead."""

    def built(lanes: list[tuple[list[int], int, int, bool]]) -> tuple[Lane, ...]:
        return tuple(
            sized([0.004 * slack for slack in slacks], size_class, lowest, len(slacks) // 3 if hides else 0)
            for slacks, size_class, lowest, hides in lanes
        )

    slacks = st.lists(st.integers(1, 60), min_size=1, max_size=most_rows)
    drawn = st.tuples(slacks, st.integers(0, 1), st.integers(0, 1), st.booleans())
    return st.lists(drawn, min_size=1, max_size=most_lanes).map(built)


def due(lanes: tuple[Lane, ...], taken: Lane | None = None, rows: int = 0) -> list[tuple[float, int, int]]:
    """Deadline, lane and number of all that wait but the `rows` first of a lane; unseen rows are due with the last."""
    found = []
    for number, some in enumerate(lanes):
        found += [(item.deadline_s, number, 1) for item in some.items[rows if some is taken else 0 :]]
        if some.depth > len(some.items):
            found.append((some.last_deadline_s, number, some.depth - len(some.items)))
    return sorted(found)


def row_s(some: Lane, slots: int) -> float:
    """A row in a full batch of the cheapest variant, all slots working."""
    most = some.family.max_batch
    return some.latency.planned_s(some.key.lowest, most, some.key.size_class) / most / slots


def latest_start_s(lanes: tuple[Lane, ...], taken: Lane | None, rows: int, slots: int) -> float:
    """Of all rows that remain: the least of deadline less the cheapest work of everything due until then."""
    latest, work_s = math.inf, 0.0
    for deadline_s, number, count in due(lanes, taken, rows):
        work_s += count * row_s(lanes[number], slots)
        latest = min(latest, deadline_s - work_s)
    return latest


def group_s(lanes: tuple[Lane, ...], slots: int) -> float:
    """The work of a group of each lane but one row: what may be due before a moment and is counted after it."""
    size = -(-sum(len(some.items) for some in lanes) // MOST_POINTS)
    return (size - 1) * sum(row_s(some, slots) for some in lanes)


@given(queues(most_rows=6), st.integers(1, 3))
def test_the_latest_start_is_that_of_what_remains(lanes: tuple[Lane, ...], slots: int) -> None:
    """Whatever lane the first rows are taken from, however many, with and without rows beyond the look-ahead."""
    assert sum(len(some.items) for some in lanes) <= MOST_POINTS
    for some in lanes:
        found = outlook(view(*lanes, slots=slots), some)
        for count in range(len(some.items) + 1):
            assert found.latest_start_s(count) == pytest.approx(latest_start_s(lanes, some, count, slots))
    assert outlook(view(*lanes, slots=slots)).latest_start_s() == pytest.approx(latest_start_s(lanes, None, 0, slots))


@given(queues(most_rows=40), st.integers(1, 3))
@example((sized([0.004] + [0.008] + [0.200] * 38),), 1)
@example((sized([0.100] * 30), sized([0.008, 0.012, 0.016] + [0.2] * 37, 1)), 1)
def test_the_latest_start_of_long_queues_is_right_but_for_the_work_of_a_group(
    lanes: tuple[Lane, ...], slots: int
) -> None:
    """It is never too early, and never later than it may be by more than what a group of each lane takes."""
    within_s = group_s(lanes, slots) + 1e-9
    for some in lanes:
        found = outlook(view(*lanes, slots=slots), some)
        for count in range(len(some.items) + 1):
            exact = latest_start_s(lanes, some, count, slots)
            if exact == NEVER:
                assert found.latest_start_s(count) == NEVER
            else:
                assert -1e-9 <= found.latest_start_s(count) - exact <= within_s


@given(queues(most_rows=60, most_lanes=32))
def test_a_look_has_few_points_whatever_waits(lanes: tuple[Lane, ...]) -> None:
    """No more than one for every row, and in long queues some for every lane; none is forgotten, heads stand alone."""
    points = points_of(lanes, 2)
    seen = sum(len(some.items) for some in lanes)
    assert len(points) <= min(seen + len(lanes), MOST_POINTS + 3 * len(lanes))
    assert points == sorted(points)
    for number, some in enumerate(lanes):
        own = [point for point in points if point.number == number]
        assert sum(point.rows for point in own) == some.depth
        assert (own[0].deadline_s, own[0].rows) == (some.items[0].deadline_s, 1)
        assert own[-1].deadline_s == some.last_deadline_s
        assert [point.row_s for point in own] == pytest.approx([row_s(some, 2)] * len(own))


def test_nobody_waits_for_a_slot_when_nothing_is_left() -> None:
    """With the queue taken out, or none at all, a slot may be away for ever."""
    alone = sized([0.05, 0.06])
    assert outlook(view(alone), alone).latest_start_s(2) == NEVER
    assert outlook(view()).latest_start_s() == NEVER


def test_the_cheapest_work_is_shared_by_all_slots() -> None:
    """Six rows of 1 ms and two of 2 ms, due in 50 ms: 10 ms on one slot, 5 ms on two, free or not."""
    lanes = sized([0.05] * 6, hidden=2), sized([0.05] * 2, size_class=1)
    for slots, expected_s in ((1, 0.040), (2, 0.045)):
        assert outlook(view(*lanes, slots=slots)).latest_start_s() == pytest.approx(expected_s)
    assert outlook(view(*lanes)._replace(busy_until_s=(0.5,))).latest_start_s() == pytest.approx(0.045)


class Horizon:
    """All rows, waiting and expected, that are due within `seconds`, of which `budget_s` may be planned with."""

    def __init__(
        self, lanes: tuple[Lane, ...], classes: tuple[DemandClass, ...], seconds: float, budget_s: float
    ) -> None:
        self.budget_s = budget_s
        self.rows = dict.fromkeys(HULLS, 0.0)
        for deadline_s, number, count in due(lanes):
            self.rows[kind_of(lanes[number])] += count if deadline_s <= seconds else 0
        for known in classes:
            self.rows[known.key] += known.rate_per_s * max(0.0, seconds - known.slo_s)
        waiting = sum(self.rows.values())
        self.each_s = budget_s / waiting if waiting else NEVER
        """Seconds for each row."""


def horizons(
    given_view: View, classes: tuple[DemandClass, ...], budget: Budget, slos_s: tuple[float, float]
) -> list[Horizon]:
    """Up to every deadline, and one far ahead."""
    lanes = given_view.lanes
    due_s = {deadline_s for deadline_s, _, _ in due(lanes)}
    others_s = [0.0] * (len(given_view.free_slots) - 1) + list(given_view.busy_until_s)
    ends_s = [*due_s, max(FAR * slos_s[1], *due_s, 0.0)]
    return [Horizon(lanes, classes, end_s, budget.seconds(end_s, slos_s[0], others_s)) for end_s in ends_s]


@given(
    queues(most_rows=6) | st.just(()),
    st.lists(
        st.builds(DemandClass, st.sampled_from(list(HULLS)), st.floats(0.01, 0.3), st.floats(1.0, 300.0)), max_size=4
    ),
    st.tuples(st.floats(0.01, 0.1), st.floats(0.1, 0.3)),
    st.integers(1, 2),
    st.lists(st.floats(0.0, 0.2), max_size=2),
    st.floats(0.6, 1.0),
)
def test_time_is_worth_what_it_is_at_the_horizon_with_the_least_of_it_for_each_row(
    lanes: tuple[Lane, ...],
    classes: list[DemandClass],
    slos_s: tuple[float, float],
    slots: int,
    busy_s: list[float],
    trust: float,
) -> None:
    """The tightest of all, each counted one by one; as much of its time is planned with as experience leaves."""
    given_view, known = view(*lanes, slots=slots)._replace(busy_until_s=tuple(busy_s)), tuple(classes)
    budget = Budget()
    found = outlook(given_view, classes=known, budget=budget, slos_s=slos_s, trust=trust).price
    all_of_them = horizons(given_view, known, budget, slos_s)
    least_s = min(horizon.each_s for horizon in all_of_them)
    tightest = [horizon for horizon in all_of_them if horizon.each_s <= least_s * (1.0 + 1e-9)]
    prices = [Hulls(HULLS).price(horizon.rows, trust * horizon.budget_s) for horizon in tightest]
    assert any(found == pytest.approx(price) for price in prices)


SLOPES = [slope for slope, _ in HULLS[kind_of(sized([1.0]))].segments()]
"""1 ms is the cheapest answer to a row of the first kind; 1.1 ms more add 0.2, and 2.3 ms more 0.15."""


@pytest.mark.parametrize(
    ("slacks_s", "rate", "expected"),
    [
        # Alone for 2 ms, one row has time for one segment but not for the other.
        ([0.002], 0.0, SLOPES[0]),
        ([0.003], 0.0, SLOPES[1]),
        ([0.005], 0.0, 0.0),
        # Four rows within 8 ms have 2 ms each; the row before has 5 ms, all five and the last one 20.
        ([0.005, 0.008, 0.008, 0.008, 0.100], 0.0, SLOPES[0]),
        # With forty to come there are 150 ms for 41 rows: 3.7 each, and not 100 for one.
        ([0.100], 800.0, SLOPES[1]),
        ([0.100], 0.0, 0.0),
    ],
)
def test_horizons_by_hand(slacks_s: list[float], rate: float, expected: float) -> None:
    """One slot; rows to come, so many a second, have 100 ms, and the far horizon lies 150 ms ahead."""
    classes = (DemandClass(kind_of(sized([1.0])), 0.1, rate),) if rate else ()
    assert outlook(view(sized(slacks_s)), classes=classes).price == pytest.approx(expected)


def test_rows_beyond_the_look_ahead_count() -> None:
    """Forty rows have 100 ms, 2.5 each: it is the same whether they are seen or not."""
    seen, unseen = (outlook(view(sized([0.1] * 40, hidden=hidden))).price for hidden in (0, 36))
    assert SLOPES[1] == pytest.approx(seen)
    assert seen == unseen


def test_a_busy_slot_leaves_less_time_than_a_free_one_and_more_than_none() -> None:
    """Sixty rows have 100 ms of each slot: 300 of three, 200 where two of them are free at half of it, 100 of one."""
    queue = sized([0.1] * 60)
    all_free, half, one = (
        outlook(view(queue)._replace(free_slots=free, busy_until_s=busy)).price
        for free, busy in (((0, 1, 2), ()), ((0,), (0.05, 0.05)), ((0,), ()))
    )
    assert (all_free, half, one) == pytest.approx((0.0, SLOPES[1], SLOPES[0]))


def test_without_rows_or_expectations_time_has_no_price() -> None:
    """An idle machine has all the time there is."""
    assert outlook(view()).price == 0.0


def look(memory: Memory, given_view: View, now: float = 0.0) -> float:
    """The price that a policy sees which remembers, with a moderate reserve."""
    assert memory.look(given_view, given_view.lanes, None, Budget(0.9, 0.6, 0.4), now).price == memory.price
    return memory.price


def test_looks_are_repeatable() -> None:
    """The same state gives the same numbers, whatever the memory has seen before."""
    fresh, used = Memory(follow=True), Memory(follow=True)
    given_view = view(lane([0.05] * 9 + [0.09] * 3), sized([0.07] * 5, 1), demand=demand(20))
    look(used, view(lane([0.02] * 3), demand=given_view.demand), now=-1.0)
    assert look(fresh, given_view) == pytest.approx(look(used, given_view))
    assert fresh.price > 0.0
    for some in given_view.lanes:
        kind = kind_of(some)
        assert fresh.given(kind, fresh.price) == pytest.approx(used.given(kind, used.price))


def test_time_has_no_price_in_an_idle_machine_and_a_high_one_in_a_full_queue() -> None:
    """One row in 100 ms can be given everything; forty cannot."""
    prices = [look(Memory(follow=True), view(lane([0.1] * rows))) for rows in (1, 8, 16, 40)]
    assert prices[0] == 0.0
    assert prices == sorted(prices)
    assert prices[-1] > prices[1] > 0.0


def test_expected_arrivals_raise_the_price_as_soon_as_the_forecast_is_read_again() -> None:
    """The same queue, and two hundred more rows to come; nobody hears of them within some milliseconds."""
    memory, queue = Memory(follow=True), lane([0.1] * 4)
    quiet, busy = view(queue), view(queue, demand=demand(200))
    alone = look(memory, quiet)
    assert alone == look(memory, busy, now=0.9 * FORECAST_S)
    assert alone < look(memory, busy, now=1.1 * FORECAST_S)


def first_s(memory: Memory, some: Lane, now: float) -> list[float]:
    """What the table of a lane plans for a first answer of each variant."""
    found: list[float] = memory.table_of(some, now).prices.first_s.tolist()
    return found


@pytest.mark.parametrize(
    ("tight", "patient", "expected_s"), [(50, 0, 0.012), (50, 50, 0.012), (1, 99, 0.3), (0, 100, 0.3)]
)
def test_tables_follow_the_shortest_usual_slo(tight: int, patient: int, expected_s: float) -> None:
    """Made for 100 ms; what follows asks for 12 or 300. One in a hundred is not usual."""
    memory, counted, first = Memory(follow=True), Demand(), lane([0.1])
    look(memory, view(first))
    for number in range(tight + patient):
        slo_s = 0.012 if number < tight else 0.3
        counted.observe(Request(number, "f", (0,), 1.0, 1.0 + slo_s, NEVER), 0, 1.0)
    some = lane([1.3], slo_s=0.3)._replace(latency=first.latency)
    for now in (1.0, 2.0):
        look(memory, view(some, demand=counted), now)
    made_for = Memory(follow=True)
    assert first_s(made_for, lane([1.3], slo_s=expected_s), 0.0) == pytest.approx(first_s(memory, some, 2.0))
    assert memory.shortest_s == pytest.approx(expected_s)


def test_one_request_with_a_long_slo_does_not_stretch_the_look() -> None:
    """Of a thousand requests one asked for ten seconds: once it is answered, nobody plans that far."""
    for odd_s in (0.1, 10.0):
        counted, memory = Demand(), Memory(follow=True)
        for number in range(1000):
            now = number / 500.0
            slo_s = odd_s if number == 500 else 0.1
            counted.observe(Request(number, "f", (0,), now, now + slo_s, NEVER), 0, now)
        look(memory, view(kept=(lane([2.05], at=0),), demand=counted), now=2.0)
        assert (memory.shortest_s, memory.longest_s) == pytest.approx((0.1, 0.1))
        look(memory, view(lane([9.0], slo_s=10.0), demand=counted), now=2.1)
        assert memory.longest_s == 10.0, "but who waits is seen"


def test_misses_are_answered_with_less_planned_time() -> None:
    """What the rule trusts in falls with every miss, as far as that goes, rises again slowly, and makes time dearer."""
    memory, queue = Memory(follow=True), view(lane([0.1] * 15))
    calm = look(memory, queue)
    assert memory.trust == 1.0
    missed = queue._replace(missed=50)
    assert look(memory, missed) > calm
    assert memory.trust == pytest.approx(1.0 - 50 * MISS_COST)
    one_in_so_many = round(MISS_COST / MET_GAIN)
    look(memory, missed._replace(met=one_in_so_many * 20, missed=70))
    assert memory.trust == pytest.approx(1.0 - 50 * MISS_COST), "where it settles"
    look(memory, missed._replace(met=one_in_so_many * 20, missed=100_000))
    assert memory.trust == LEAST_TRUST
    look(memory, missed._replace(met=1_000_000, missed=100_000))
    assert memory.trust == 1.0


def test_hulls_follow_the_seconds_as_learnt() -> None:
    """A machine that takes twice as long gives rows twice the seconds for the same."""
    memory, some = Memory(follow=True), sized([9.0], slo_s=9.0)
    kind = kind_of(some)
    look(memory, view(some))
    before_s, before = memory.given(kind, 0.0)
    for number in range(300):
        for variant in (0, 1):
            seconds = 2.0 * some.latency.median_s(variant, 1, 0)
            some.latency.observe(variant, 1, 0, seconds, seconds, 0.001 * number)
    look(memory, view(some), now=1.1 * max(RECHECK_S, MERGE_S))
    assert memory.given(kind, 0.0) == pytest.approx((2.0 * before_s, before), rel=0.02)


def test_a_family_that_counts_more_gets_more_of_the_time() -> None:
    """Time goes where it adds most: both families see the same price, in qualities that are weighed."""
    both = view(lane([0.1] * 8), sized([0.1] * 8))
    found = []
    for weight in (1.0, 4.0):
        memory = Memory(follow=True)
        look(memory, both._replace(hints=Hints(0.0, weights={"f": weight})))
        assert memory.weight("f") == weight
        found.append([memory.given(kind_of(some), memory.price)[0] for some in both.lanes])
    (f_s, s_s), (weighed_f_s, weighed_s_s) = found
    assert weighed_f_s > f_s
    assert weighed_s_s < s_s


def test_weights_are_followed_from_look_to_look() -> None:
    """Advice that comes, and that becomes too old."""
    memory, full = Memory(follow=True), view(sized([0.1] * 20))
    plain = look(memory, full)
    assert 4.0 * plain == pytest.approx(look(memory, full._replace(hints=Hints(0.0, weights={"s": 4.0}))))
    assert plain == look(memory, full)


def test_kinds_are_forgotten_when_there_are_too_many() -> None:
    """One size class after the other: what is remembered stays bounded, and holds for what is asked."""
    family = Family(
        "s",
        (VariantProfile("quick", 0.6, table((1, 8), *[(0.001, 0.008)] * 200)),),
        sizes=tuple(range(1, 201)),
        max_batch=8,
    )
    memory, latency = Memory(follow=True), LatencyModel(family, 1.0)
    for size_class in range(200):
        some = sized([9.0 + size_class], size_class)._replace(family=family, latency=latency)
        look(memory, view(some), now=size_class * 2 * FORECAST_S)
        assert len(memory._kinds) <= MOST_KINDS + 1
        assert memory.given(kind_of(some), 0.0)[1] == 0.6


def test_a_family_that_is_always_wrong_can_be_looked_at() -> None:
    """A quality of nothing has no slope; its rows are worth nothing, and time is free."""
    useless = Family("s", (VariantProfile("none", 0.0, table((1, 8), (0.001, 0.008))),), max_batch=8)
    some = sized([0.1])._replace(family=useless, latency=LatencyModel(useless, 1.0))
    assert look(Memory(follow=True), view(some)) <= 1e-3


def test_a_family_that_counts_nothing_can_be_looked_at() -> None:
    """A weight of zero leaves a family a price of its own."""
    memory = Memory(follow=True)
    found = look(memory, view(lane([0.1] * 30))._replace(hints=Hints(0.0, weights={"f": 0.0})))
    assert math.isfinite(found / memory.weight("f"))
