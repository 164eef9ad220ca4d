"""One look at the machine: the price at the tightest horizon, how long slots may be away, what memory makes of it."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router.demand import DemandClass
from router.fluid import Budget, Forecast, Hull, Hulls
from router.outlook import FAR, MANY_LANES, MOST_POINTS, Ahead, Outlook, kind_of, points_of
from router.request import NEVER
from router.view import Lane, View
from tests.queued import sized, view

ALL = Budget(1.0, 0.0, 0.0)
"""All the time there is."""


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
    """No more than one for every row, and in long queues some for every lane; none is forgotten.

    Heads stand alone but for those of few rows among many lanes, which are one point.
    """
    points = points_of(lanes, 2)
    seen = sum(len(some.items) for some in lanes)
    assert len(points) <= min(seen + len(lanes), MOST_POINTS + 3 * len(lanes))
    assert points == sorted(points)
    few = -(-seen // MOST_POINTS) if len(lanes) > MANY_LANES else 1
    for number, some in enumerate(lanes):
        own = [point for point in points if point.number == number]
        assert sum(point.rows for point in own) == some.depth
        together = len(some.items) <= few
        assert (own[0].deadline_s, own[0].rows) == (some.items[0].deadline_s, len(some.items) if together else 1)
        assert own[-1].deadline_s == (some.items[0].deadline_s if len(own) == 1 else some.last_deadline_s)
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
