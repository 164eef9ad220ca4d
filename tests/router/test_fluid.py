"""The fluid look-ahead: the price of time against linear programs, budgets by hand, and what a forecast expects."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from router.cascades import upper_hull
from router.demand import DemandClass, DemandKey
from router.fluid import Budget, Forecast, Hull, Hulls
from router.request import NEVER

KINDS = [DemandKey("f", -1, 0, size_class) for size_class in range(4)]
SHORT_FIRST = [Hull((0.0, 1.0, 3.0), (0.0, 0.6, 0.8)), Hull((0.0, 2.0, 4.0), (0.0, 0.9, 1.5))]
"""Slopes 0.6 and 0.1 over 1 s and 2 s; 0.45 and 0.3 over 2 s each."""
UNLIKE = [Hull((0.0, 1.0, 2.0), (0.0, 0.5, 0.9)), Hull((0.0, 10.0), (0.0, 0.6))]
"""A better answer to a row of the first kind adds more per second than any to one of the second."""


@st.composite
def hulls(draw: st.DrawFn) -> list[Hull]:
    """One to four concave hulls from (0, 0)."""
    point = st.tuples(st.floats(0.1, 5.0), st.floats(0.05, 1.0))
    drawn = draw(st.lists(st.lists(point, min_size=1, max_size=5), min_size=1, max_size=4))
    found = []
    for points in drawn:
        seconds, quality = upper_hull(*np.array(points).T)
        found.append(Hull(tuple(seconds.tolist()), tuple(quality.tolist())))
    return found


def first_of(hulls: list[Hull], rows: list[float]) -> tuple[float, float]:
    """Seconds and quality of everybody's cheapest answer."""
    seconds = sum(count * hull.seconds[1] for hull, count in zip(hulls, rows, strict=True))
    return seconds, sum(count * hull.quality[1] for hull, count in zip(hulls, rows, strict=True))


def best_value(hulls: list[Hull], rows: list[float], budget_s: float) -> float:
    """What time is worth: everybody's cheapest answer first, in whatever order, and then the best use of the rest.

    The rest is a linear program over the other segments.
    """
    first_s, first = first_of(hulls, rows)
    if budget_s <= first_s:
        return first * budget_s / first_s
    width = np.concatenate([np.diff(hull.seconds[1:]) * count for hull, count in zip(hulls, rows, strict=True)])
    slope = np.concatenate([np.diff(hull.quality[1:]) / np.diff(hull.seconds[1:]) for hull in hulls])
    if not len(slope):
        return first
    bounds = [(0.0, most) for most in width]
    rest = linprog(-slope, A_ub=np.ones((1, len(slope))), b_ub=[budget_s - first_s], bounds=bounds)
    return first - float(rest.fun)


def price(hulls: list[Hull], rows: list[float], budget_s: float) -> float:
    """The same hulls and rows under the names of kinds."""
    named = dict(zip(KINDS, hulls, strict=False))
    return Hulls(named).price(dict(zip(KINDS, rows, strict=False)), budget_s)


def drawn_rows(data: st.DataObject, hulls: list[Hull]) -> list[float]:
    return data.draw(st.lists(st.floats(0.1, 20.0), min_size=len(hulls), max_size=len(hulls)))


@given(hulls(), st.data(), st.floats(0.0, 80.0), st.floats(0.0, 80.0))
def test_no_other_budget_is_worth_more_than_at_the_price(
    hulls: list[Hull], data: st.DataObject, more_s: float, other_s: float
) -> None:
    """Behind the cheapest answers: the price is a slope of the linear program's value, which lies below its tangent."""
    rows = drawn_rows(data, hulls)
    first_s, _ = first_of(hulls, rows)
    value, other = (best_value(hulls, rows, first_s + seconds) for seconds in (more_s, other_s))
    # Nearer to the cheapest answers rounding decides on which side of that corner the price is taken.
    if more_s > 1e-6:
        assert other <= value + price(hulls, rows, first_s + more_s) * (other_s - more_s) + 1e-6


@given(hulls(), st.data(), st.floats(0.001, 80.0))
def test_the_price_is_what_the_last_second_adds(hulls: list[Hull], data: st.DataObject, more_s: float) -> None:
    """But where the step back crosses a corner, before which a second adds more."""
    rows, step_s = drawn_rows(data, hulls), 0.0005
    budget_s = first_of(hulls, rows)[0] + more_s
    added = best_value(hulls, rows, budget_s) - best_value(hulls, rows, budget_s - step_s)
    before, at = price(hulls, rows, budget_s - step_s), price(hulls, rows, budget_s)
    assert step_s * at - 1e-6 <= added <= step_s * before + 1e-6
    if before == at:
        assert added == pytest.approx(step_s * at, abs=1e-6)


@given(hulls(), st.data(), st.floats(0.01, 1.0))
def test_before_the_cheapest_answers_are_paid_every_second_adds_the_same(
    hulls: list[Hull], data: st.DataObject, share: float
) -> None:
    """The average of what they cost: rows run in the order of deadlines, not of what they cost."""
    rows = drawn_rows(data, hulls)
    budget_s = share * first_of(hulls, rows)[0]
    assert price(hulls, rows, budget_s) == pytest.approx(best_value(hulls, rows, budget_s) / budget_s)


@given(hulls(), st.data(), st.lists(st.floats(0.0, 80.0), min_size=2, max_size=8))
def test_behind_the_cheapest_answers_the_next_second_adds_ever_less(
    hulls: list[Hull], data: st.DataObject, more_s: list[float]
) -> None:
    """And never less than nothing."""
    rows = drawn_rows(data, hulls)
    first_s, _ = first_of(hulls, rows)
    prices = [price(hulls, rows, first_s + 1e-9 + seconds) for seconds in sorted(more_s)]
    assert prices == sorted(prices, reverse=True)
    assert prices[-1] >= 0.0


@given(hulls(), st.data(), st.floats(0.01, 80.0))
def test_what_rows_are_given_at_the_price_fills_the_budget(
    hulls: list[Hull], data: st.DataObject, more_s: float
) -> None:
    """All that is steeper fits; with what is as steep there is no time left, unless everything is had."""
    rows = drawn_rows(data, hulls)
    budget_s = first_of(hulls, rows)[0] + more_s
    at = price(hulls, rows, budget_s)
    steeper_s, as_steep_s = (
        sum(count * hull.given(limit)[0] for hull, count in zip(hulls, rows, strict=True))
        for limit in (at, at - 1e-9 * max(at, 1.0))
    )
    assert steeper_s <= budget_s + 1e-9
    if at > 0.0:
        assert as_steep_s >= budget_s - 1e-9


@given(hulls(), st.floats(0.0, 20.0))
def test_a_row_is_given_its_cheapest_answer_and_what_is_steeper_than_the_price(hulls: list[Hull], at: float) -> None:
    """Seconds and quality are those of a corner of its hull."""
    for hull in hulls:
        slopes = np.diff(hull.quality) / np.diff(hull.seconds)
        corner = 1 + int((slopes[1:] > at).sum())
        assert (hull.seconds[corner], hull.quality[corner]) == hull.given(at)


@given(hulls())
def test_the_segments_of_a_hull_lead_from_its_cheapest_answer_to_its_best(hulls: list[Hull]) -> None:
    """Ever less steep, and together as wide and as high as the way between them."""
    for hull in hulls:
        segments = hull.segments()
        assert sum(width for _, width in segments) == pytest.approx(hull.seconds[-1] - hull.seconds[1])
        assert sum(slope * width for slope, width in segments) == pytest.approx(hull.quality[-1] - hull.quality[1])
        assert all(steeper >= flatter for (steeper, _), (flatter, _) in pairwise(segments))


@pytest.mark.parametrize(
    ("budget_s", "expected"),
    [(-1.0, 0.5), (0.0, 0.5), (1.0, 0.5), (6.0, 0.5), (7.0, 0.3), (10.0, 0.3), (10.1, 0.1), (14.0, 0.1), (99.0, 0.0)],
)
def test_two_rows_of_each_kind_by_hand(budget_s: float, expected: float) -> None:
    """Six seconds of cheapest answers at 0.5 on average, four at 0.3, four at 0.1, then nothing more is to be had."""
    assert price(SHORT_FIRST, [2.0, 2.0], budget_s) == pytest.approx(expected)


@pytest.mark.parametrize(("budget_s", "expected"), [(5.5, 0.1), (11.0, 0.1), (11.5, 0.4), (12.5, 0.0)])
def test_everybodys_cheapest_answer_comes_before_anybodys_better_one(budget_s: float, expected: float) -> None:
    """Also where the better one would add four times as much in the same time."""
    assert price(UNLIKE, [1.0, 1.0], budget_s) == pytest.approx(expected)


@pytest.mark.parametrize("rows", [{}, {KINDS[0]: 0.0}])
def test_time_for_nobody_is_worth_nothing(rows: dict[DemandKey, float]) -> None:
    """Whatever there is of it."""
    known = Hulls(dict(zip(KINDS, SHORT_FIRST, strict=False)))
    assert [0.0] * 3 == [known.price(rows, budget_s) for budget_s in (-1.0, 0.0, 5.0)]


def test_kinds_that_nobody_asks_for_change_no_price() -> None:
    """Their hulls are known all the same."""
    known = Hulls(dict(zip(KINDS, SHORT_FIRST, strict=False)))
    for budget_s in (1.0, 3.0, 5.0, 9.0):
        assert known.price({KINDS[1]: 2.0}, budget_s) == price(SHORT_FIRST[1:], [2.0], budget_s)


def test_the_reserve_is_the_smaller_of_its_two_limits() -> None:
    """Of 10 s the share of 4 s is more than 0.6 of an SLO of 5 s; of 2 s the share of 0.8 s is less."""
    found = [Budget(0.9, 0.6, 0.4).seconds(horizon_s, 5.0, []) for horizon_s in (2.0, 10.0)]
    assert found == pytest.approx([0.9 * 1.2, 0.9 * 7.0])


def test_other_slots_count_from_when_they_are_free() -> None:
    """Of 6 s each, one other slot has all of them, one 2 s of them, and one none: it is taken for longer."""
    assert Budget(1.0, 0.0, 0.0).seconds(6.0, 1.0, [0.0, 4.0, 9.0]) == pytest.approx(14.0)


@given(st.floats(0.0, 9.0), st.floats(0.0, 9.0), st.floats(0.01, 5.0), st.lists(st.floats(0.0, 9.0), max_size=4))
def test_a_longer_horizon_never_has_less_time(
    first_s: float, second_s: float, slo_s: float, others_s: list[float]
) -> None:
    """And never more than all slots together have up to then."""
    near_s, far_s = sorted((first_s, second_s))
    near, far = (Budget().seconds(horizon_s, slo_s, others_s) for horizon_s in (near_s, far_s))
    assert 0.0 <= near <= far + 1e-12
    assert far <= far_s * (1 + len(others_s))


@st.composite
def classes(draw: st.DrawFn) -> list[DemandClass]:
    """Up to eight classes of four kinds, in any order."""
    known = st.builds(DemandClass, st.sampled_from(KINDS), st.floats(0.01, 2.0), st.floats(0.0, 500.0))
    return draw(st.lists(known, max_size=8))


@given(classes(), st.floats(0.0, 4.0), st.floats(0.0, 9.0))
def test_rows_are_due_that_arrive_an_slo_before_the_horizon(
    classes: list[DemandClass], horizon_s: float, waiting: float
) -> None:
    """Counted one by one, together and by kind, beside those that are counted already."""
    forecast, rows = Forecast(classes), {KINDS[0]: waiting}
    forecast.add_due(rows, horizon_s)
    expected = dict.fromkeys(KINDS, 0.0)
    for known in classes:
        expected[known.key] += known.rate_per_s * max(0.0, horizon_s - known.slo_s)
    assert forecast.due(horizon_s) == pytest.approx(sum(expected.values()), abs=1e-6)
    expected[KINDS[0]] += waiting
    assert {kind: rows.get(kind, 0.0) for kind in KINDS} == pytest.approx(expected, abs=1e-9)
    assert forecast.per_s == pytest.approx(sum(known.rate_per_s for known in classes))


@given(classes(), st.floats(0.0, 1.0))
def test_the_usual_slo_is_a_quantile_over_rows(classes: list[DemandClass], share: float) -> None:
    """The shortest that at least that share of the rows has at most."""
    forecast = Forecast(classes)
    found = forecast.usual_slo_s(share)
    if not classes:
        assert found == NEVER
        return
    assert found in {known.slo_s for known in classes}
    wanted = share * sum(known.rate_per_s for known in classes)
    assert sum(known.rate_per_s for known in classes if known.slo_s <= found) >= wanted - 1e-6
    # Equal SLOs may be reached within: those before have less, or only just as much.
    assert sum(known.rate_per_s for known in classes if known.slo_s < found) <= wanted + 1e-6


def test_few_rows_with_an_odd_slo_are_not_usual() -> None:
    """One of a hundred has 10 ms, one 10 s: a tenth has 50 ms at most, nine tenths 200 ms."""
    rates = {0.01: 1.0, 0.05: 49.0, 0.2: 49.0, 10.0: 1.0}
    forecast = Forecast([DemandClass(KINDS[0], slo_s, rate) for slo_s, rate in rates.items()])
    assert [0.05, 0.2] == [forecast.usual_slo_s(share) for share in (0.1, 0.9)]


def test_nothing_is_expected_of_no_classes() -> None:
    """At any horizon, and nothing is added."""
    forecast, rows = Forecast(), {KINDS[0]: 2.0}
    forecast.add_due(rows, 9.0)
    assert (0.0, 0.0, {KINDS[0]: 2.0}) == (forecast.due(9.0), forecast.per_s, rows)
