"""The fluid look-ahead: value and price of time against linear programs, and horizons worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linprog

from router.cascades import upper_hull
from router.fluid import Arrivals, Budget, Segments, tightest

Floats = NDArray[np.float64]
Hull = tuple[Floats, Floats]

NOBODY = Arrivals(np.zeros(0, np.intp), np.zeros(0), np.zeros(0))
HULLS: list[Hull] = [
    (np.array([0.0, 1.0, 3.0]), np.array([0.0, 0.6, 0.8])),
    (np.array([0.0, 2.0, 4.0]), np.array([0.0, 0.9, 1.5])),
]
"""Slopes 0.6 and 0.1 over 1 s and 2 s; 0.45 and 0.3 over 2 s each."""
UNLIKE: list[Hull] = [
    (np.array([0.0, 1.0, 2.0]), np.array([0.0, 0.5, 0.9])),
    (np.array([0.0, 10.0]), np.array([0.0, 0.6])),
]
"""A better answer to a row of the first kind adds more per second than any to one of the second."""


@st.composite
def hulls(draw: st.DrawFn) -> list[Hull]:
    """One to four concave hulls from (0, 0)."""
    point = st.tuples(st.floats(0.1, 5.0), st.floats(0.05, 1.0))
    drawn = draw(st.lists(st.lists(point, min_size=1, max_size=5), min_size=1, max_size=4))
    return [upper_hull(*np.array(points).T) for points in drawn]


def best_value(kinds: list[Hull], rows: Floats, budget_s: float) -> float:
    """What time is worth: everybody's cheapest answer first, in whatever order, and then the best use of the rest.

    The rest is a linear program over the other segments.
    """
    first_s = float(sum(cost[1] * count for (cost, _), count in zip(kinds, rows, strict=True)))
    first = float(sum(value[1] * count for (_, value), count in zip(kinds, rows, strict=True)))
    if budget_s <= first_s:
        return first * budget_s / first_s
    width = np.concatenate([np.diff(cost[1:]) * count for (cost, _), count in zip(kinds, rows, strict=True)])
    slope = np.concatenate([np.diff(value[1:]) / np.diff(cost[1:]) for cost, value in kinds])
    if not len(slope):
        return first
    bounds = [(0.0, most) for most in width]
    rest = linprog(-slope, A_ub=np.ones((1, len(slope))), b_ub=[budget_s - first_s], bounds=bounds)
    return first - float(rest.fun)


@given(hulls(), st.data())
def test_the_value_of_time_is_that_of_the_cheapest_answers_and_the_best_use_of_the_rest(
    kinds: list[Hull], data: st.DataObject
) -> None:
    """Filling the other segments by their slopes solves the linear program."""
    rows = np.array(data.draw(st.lists(st.floats(0.1, 20.0), min_size=len(kinds), max_size=len(kinds))))
    budget_s = data.draw(st.floats(0.0, 100.0))
    curve = Segments(kinds).curve(rows, budget_s)
    assert curve.worth == pytest.approx(best_value(kinds, rows, budget_s), abs=1e-6)


@given(hulls(), st.floats(0.0, 30.0), st.floats(-40.0, 40.0))
def test_a_change_of_the_budget_is_the_difference_of_two_curves(
    kinds: list[Hull], budget_s: float, freed_s: float
) -> None:
    """Also below nothing, where time is owed at the first slope."""
    segments, rows = Segments(kinds), np.full(len(kinds), 3.0)
    curve = segments.curve(rows, budget_s)
    other = segments.curve(rows, budget_s + freed_s)
    assert curve.change(np.array([freed_s]))[0] == pytest.approx(other.worth - curve.worth, abs=1e-5)


@given(hulls(), st.floats(0.01, 60.0))
def test_the_price_is_what_the_last_second_adds(kinds: list[Hull], budget_s: float) -> None:
    """And what the next one adds, but at a corner."""
    segments, rows = Segments(kinds), np.full(len(kinds), 3.0)
    curve = segments.curve(rows, budget_s)
    corners = curve.seconds - budget_s
    step_s = 1e-4
    if not ((-2 * step_s < corners) & (corners < 0.0)).any():
        assert -curve.change(np.array([-step_s]))[0] == pytest.approx(step_s * curve.price, abs=1e-8)
    if not ((corners >= 0.0) & (corners < 2 * step_s)).any():
        assert curve.change(np.array([step_s]))[0] == pytest.approx(step_s * curve.price, abs=1e-8)


@given(hulls(), st.floats(0.0, 60.0))
def test_behind_the_cheapest_answers_the_next_second_adds_ever_less(kinds: list[Hull], budget_s: float) -> None:
    """Before them every second adds the same."""
    curve = Segments(kinds).curve(np.full(len(kinds), 3.0), budget_s)
    slopes = np.diff(curve.value) / np.diff(curve.seconds)
    assert slopes[0] == pytest.approx(slopes[1])
    wide = np.diff(curve.seconds[2:]) > 1e-6
    assert np.all(np.diff(slopes[2:][wide]) <= 1e-6)


@given(hulls(), st.floats(-5.0, 60.0))
def test_a_row_is_allotted_its_cheapest_answer_and_what_is_steeper_than_the_price(
    kinds: list[Hull], budget_s: float
) -> None:
    """`taken` and `taken_s` at `segments`; nothing but cheapest answers while the budget is not enough for those."""
    segments = Segments(kinds)
    curve = segments.curve(np.full(len(kinds), 3.0), budget_s)
    enough = budget_s > 3.0 * sum(cost[1] for cost, _ in kinds)
    for kind, (cost, value) in enumerate(kinds):
        steeper = (np.diff(value) / np.diff(cost) > curve.price + 1e-9) & enough
        steeper[0] = True
        assert segments.taken_s[curve.segments, kind] == pytest.approx(np.diff(cost)[steeper].sum(), abs=1e-9)
        assert segments.taken[curve.segments, kind] == pytest.approx(np.diff(value)[steeper].sum(), abs=1e-9)


@pytest.mark.parametrize(
    ("budget_s", "worth", "price", "segments"),
    [
        (-1.0, -0.5, 0.5, 0),
        (1.0, 0.5, 0.5, 0),
        (6.0, 3.0, 0.5, 0),
        (7.0, 3.3, 0.3, 0),
        (10.0, 4.2, 0.3, 0),
        (12.0, 4.4, 0.1, 1),
        (99.0, 4.6, 0.0, 2),
    ],
)
def test_two_rows_of_each_kind_by_hand(budget_s: float, worth: float, price: float, segments: int) -> None:
    """Six seconds of cheapest answers at 0.5 on average, four at 0.3, four at 0.1, then nothing more is to be had."""
    curve = Segments(HULLS).curve(np.array([2.0, 2.0]), budget_s)
    assert segments == curve.segments
    assert (curve.worth, curve.price) == pytest.approx((worth, price))


@pytest.mark.parametrize(("budget_s", "worth", "price"), [(5.5, 0.55, 0.1), (11.0, 1.1, 0.1), (11.5, 1.3, 0.4)])
def test_everybodys_cheapest_answer_comes_before_anybodys_better_one(
    budget_s: float, worth: float, price: float
) -> None:
    """Also where the better one would add four times as much in the same time."""
    segments = Segments(UNLIKE)
    curve = segments.curve(np.ones(2), budget_s)
    assert (curve.worth, curve.price) == pytest.approx((worth, price))
    assert [1.0, 10.0] == segments.taken_s[curve.segments].tolist()


def test_time_for_nobody_is_worth_nothing() -> None:
    """Without rows neither more nor less time changes anything."""
    curve = Segments(HULLS).curve(np.zeros(2), 5.0)
    assert (curve.price, curve.worth, curve.change(np.array([-9.0, 9.0])).tolist()) == (0.0, 0.0, [0.0, 0.0])


def test_the_reserve_is_the_smaller_of_its_two_limits() -> None:
    """Of 10 s the share of 4 s is more than 0.6 of an SLO of 5 s; of 2 s the share of 0.8 s is less."""
    found = Budget(0.9, 0.6, 0.4).seconds(np.array([2.0, 10.0]), 5.0, [])
    assert [pytest.approx(0.9 * 1.2), pytest.approx(0.9 * 7.0)] == found.tolist()


def test_other_slots_count_from_when_they_are_free() -> None:
    """Of 6 s each, one other slot has all of them, one 2 s of them, and one none: it is taken for longer."""
    found = Budget(1.0, 0.0, 0.0).seconds(np.array([6.0]), 1.0, [0.0, 4.0, 9.0])
    assert [14.0] == found.tolist()


def test_the_tightest_horizon_is_where_rows_pile_up() -> None:
    """Four rows due at 2 s have 0.5 s each; the row before has 1 s, all five and the last at 9 s 1.5 s."""
    due_s = np.array([1.0, 2.0, 2.0, 2.0, 9.0, 12.0])
    kind = np.array([0, 0, 1, 1, 0])
    horizon = tightest(due_s, np.ones(5), kind, NOBODY, due_s, 2)
    assert (horizon.due, horizon.budget_s, horizon.later_budget_s) == (3, 2.0, 10.0)
    assert (horizon.rows.tolist(), horizon.later_rows.tolist()) == ([2.0, 2.0], [1.0, 0.0])


def test_a_lump_counts_as_many_rows() -> None:
    """A hundred rows due at 5 s have less time than the one due at 0.1 s."""
    horizon = tightest(np.array([0.1, 5.0, 9.0]), np.array([1.0, 100.0]), np.zeros(2, np.intp), NOBODY, np.ones(3), 1)
    assert (horizon.due, horizon.rows.tolist()) == (1, [101.0])


def test_expected_arrivals_move_the_horizon() -> None:
    """One row waits; a hundred a second are to come that are due an SLO later: the far horizon is the tightest."""
    due_s = np.array([0.1, 1.5])
    quiet = tightest(due_s, np.ones(1), np.zeros(1, np.intp), NOBODY, due_s, 2)
    assert (quiet.due, quiet.rows.tolist(), quiet.later_rows.tolist()) == (0, [1.0, 0.0], [0.0, 0.0])
    ahead = Arrivals(np.array([1]), np.array([1.0]), np.array([100.0]))
    busy = tightest(due_s, np.ones(1), np.zeros(1, np.intp), ahead, due_s, 2)
    assert (busy.due, busy.rows.tolist(), busy.later_budget_s) == (1, [1.0, 50.0], 0.0)


def test_with_nobody_waiting_the_far_horizon_counts_arrivals_alone() -> None:
    """An empty queue is no special case."""
    ahead = Arrivals(np.array([0, 0]), np.array([1.0, 2.0]), np.array([10.0, 10.0]))
    horizon = tightest(np.array([3.0]), np.zeros(0), np.zeros(0, np.intp), ahead, np.array([2.0]), 1)
    assert (horizon.due, horizon.rows.tolist(), horizon.budget_s) == (0, [30.0], 2.0)


@given(st.lists(st.tuples(st.floats(0.01, 5.0), st.integers(0, 2)), min_size=1, max_size=20), st.floats(0.0, 20.0))
def test_no_horizon_leaves_less_time_per_row(waiting: list[tuple[float, int]], rate: float) -> None:
    """The found one is the smallest of all quotients, counted one by one."""
    waiting.sort()
    due_s = np.array([*[due for due, _ in waiting], 8.0])
    kind = np.array([kind for _, kind in waiting])
    ahead = Arrivals(np.array([0]), np.array([0.5]), np.array([rate]))
    budget_s = Budget().seconds(due_s, 0.5, [0.3])
    horizon = tightest(due_s, np.ones(len(kind)), kind, ahead, budget_s, 3)
    rows = [sum(due <= until for due in due_s[:-1]) + rate * max(0.0, until - 0.5) for until in due_s]
    least = min(seconds / count for seconds, count in zip(budget_s, rows, strict=True))
    assert horizon.budget_s / horizon.rows.sum() == pytest.approx(least)
    assert horizon.rows.sum() + horizon.later_rows.sum() == pytest.approx(rows[-1])
    assert horizon.budget_s + horizon.later_budget_s == pytest.approx(budget_s[-1])
