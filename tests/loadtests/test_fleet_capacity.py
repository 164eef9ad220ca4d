"""Capacity of a fleet: where attainment falls below its target, simulated and read off measured rates."""

from __future__ import annotations

import pytest

from loadtests.fleet_capacity import Predictor, crossing, deviation
from loadtests.machine import Machine
from tests.scripted import FAMILY, SAMPLES


@pytest.mark.parametrize(
    ("attained", "target", "expected"),
    [
        ([1.0, 0.98, 0.90], 0.96, 225.0),
        ([1.0, 1.0, 1.0], 0.95, 300.0),
        ([0.9, 0.8, 0.7], 0.95, 100.0),
        ([1.0, 0.9, 1.0], 0.95, 150.0),
    ],
)
def test_a_line_between_two_rates_says_where_the_target_is_missed(
    attained: list[float], target: float, expected: float
) -> None:
    """The first fall counts; where there is none, or nothing before it, the nearest measured rate."""
    assert pytest.approx(expected) == crossing([100.0, 200.0, 300.0], attained, target)


@pytest.mark.parametrize(
    ("attained", "expected"),
    [
        ([1.0, 0.98, 0.92], "-20.0%"),
        ([1.0, 1.0, 1.0], "less than -33.3%"),
        ([0.9, 0.8, 0.7], "more than +100.0%"),
    ],
)
def test_a_capacity_beyond_the_measured_rates_is_a_bound(attained: list[float], expected: str) -> None:
    """Whoever never misses the target, or always does, has not been measured there: it is not told as if."""
    assert expected == deviation(200.0, [100.0, 200.0, 300.0], attained, 0.95)


def test_without_rates_there_is_no_capacity() -> None:
    """Nothing measured is an error, not a number."""
    with pytest.raises(ValueError, match="expected at least one rate"):
        crossing([], [], 0.9)


def test_the_predicted_capacity_holds_and_more_does_not() -> None:
    """Bisection ends between a rate that attains the target and one that does not, and grows with the replicas."""
    predictor = Predictor(FAMILY, SAMPLES, "fixed:large", Machine(noise=0.1), slo_s=0.05, duration_s=2.0, seeds=2)
    one, two = (predictor.capacity(count, 0.95, 2000.0) for count in (1, 2))
    assert predictor.attainment(1, one) >= 0.95 > predictor.attainment(1, one + 2000.0 / 32)
    assert 1.8 * one < two
