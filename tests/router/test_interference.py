"""Busy neighbours: what batches lose to them is learnt where company changes, and nothing is where it does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.interference import MOST, Interference


def learnt(crowds: np.ndarray, slope: float, noise: float, seed: int = 0) -> Interference:
    rng = np.random.default_rng(seed)
    some = Interference()
    for crowd in crowds.tolist():
        some.observe(crowd, (1.0 + slope * crowd) * float(np.exp(noise * rng.standard_normal())), 1.0)
    return some


@pytest.mark.parametrize("slope", [0.0, 0.3, 0.8])
def test_what_busy_neighbours_cost_is_learnt(slope: float) -> None:
    """Half of the batches have company."""
    crowds = np.random.default_rng(1).integers(0, 2, 2000).astype(float)
    some = learnt(crowds, slope, 0.1)
    assert pytest.approx((1.0 + slope) / 1.0, abs=0.15) == some.factor(1.0) / some.factor(0.0)


@pytest.mark.parametrize("crowd", [0.0, 0.5, 1.0])
def test_nothing_is_learnt_where_the_company_never_changes(crowd: float) -> None:
    """The shared correction has it: plans for the usual company are as they were, however long batches took."""
    some = learnt(np.full(500, crowd), 0.7, 0.2)
    assert 0.0 == some.slope
    assert 1.0 == some.factor(crowd)


def test_before_anything_ran_nothing_is_corrected() -> None:
    """There is no usual company yet."""
    assert 1.0 == Interference().factor(1.0)


@given(
    batches=st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(0.01, 50.0)), max_size=60), expected=st.floats(0.2, 5.0)
)
def test_factors_are_bounded_whatever_is_observed(batches: list[tuple[float, float]], expected: float) -> None:
    """No observation makes a plan vanish or explode, and more company never makes batches quicker."""
    some = Interference()
    for crowd, ratio in batches:
        assert some.observe(crowd, ratio, expected) > 0.0
    assert 0.0 <= some.slope <= MOST
    assert 0.25 <= some.factor(0.0) <= some.factor(1.0) <= 1.0 + MOST
