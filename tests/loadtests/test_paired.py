"""Paired differences: intervals as the textbook has them, traces as strata."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.paired import mean_difference, student_t


def test_one_trace_is_a_plain_paired_t_interval() -> None:
    """Differences 1, 2, 3: mean 2, standard error 1/sqrt(3), t with two degrees of freedom."""
    found = mean_difference([[1.0, 2.0, 3.0]])
    half = 4.303 / math.sqrt(3.0)
    assert (2.0, 3) == (found.mean, found.pairs)
    assert pytest.approx((2.0 - half, 2.0 + half)) == (found.low, found.high)


def test_differences_between_traces_do_not_widen_the_interval() -> None:
    """Traces are fixed: only what varies from seed to seed on one trace is chance."""
    same, apart = mean_difference([[0.0, 1.0], [0.0, 1.0]]), mean_difference([[0.0, 1.0], [10.0, 11.0]])
    assert pytest.approx(same.high - same.low) == apart.high - apart.low


def test_without_a_second_seed_traces_are_the_sample() -> None:
    """Four traces of one seed each give the interval of four differences."""
    assert mean_difference([[1.0], [2.0], [3.0], [4.0]])[:3] == pytest.approx(
        mean_difference([[1.0, 2.0, 3.0, 4.0]])[:3]
    )


def test_one_pair_tells_nothing_of_chance() -> None:
    """The interval of a single difference has no ends."""
    assert (5.0, -math.inf, math.inf, 1) == mean_difference([[5.0]])


@pytest.mark.parametrize("strata", [[], [[]], [[1.0], []]])
def test_traces_without_differences_are_refused(strata: list[list[float]]) -> None:
    """A mean over nothing is no mean."""
    with pytest.raises(ValueError, match="at least one difference"):
        mean_difference(strata)


@given(st.floats(1.0, 1e6), st.floats(1.0, 1e6))
def test_t_falls_with_its_degrees_of_freedom(one: float, other: float) -> None:
    """And stays above the normal distribution's quantile."""
    low, high = sorted((one, other))
    assert student_t(low) >= student_t(high) >= 1.96
