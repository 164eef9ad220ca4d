"""Variants are compared on the same rows, and a difference that the rows do not show is called a tie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import binomtest

from variants.paired import compare, mcnemar, paired_difference

Scores = NDArray[np.float64]


@given(st.integers(0, 300), st.integers(0, 300))
def test_the_exact_test_is_the_binomial_one(better: int, worse: int) -> None:
    """McNemar's exact p-value is that of a fair coin on the rows on which just one variant is right."""
    expected = binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert pytest.approx(expected, rel=1e-9) == mcnemar(better, worse)


def test_many_rows_are_no_trouble() -> None:
    """Whole numbers of a thousand digits are divided, not turned to floats before."""
    assert 1.0 == mcnemar(2500, 2500)
    assert 0.0 < mcnemar(2000, 2500) < 1e-12


@pytest.mark.parametrize(("gained", "lost", "tied"), [(5, 0, True), (6, 0, False), (20, 12, True), (60, 30, False)])
def test_ties_of_right_and_wrong(gained: int, lost: int, tied: bool) -> None:
    """Of 1000 rows, five gained and none lost may be chance; six may not."""
    first, second = np.zeros(1000), np.zeros(1000)
    first[:gained] = 1.0
    second[gained : gained + lost] = 1.0
    found = compare(first, second)
    assert (tied, 1000) == (found.tied, found.rows)
    assert pytest.approx((gained - lost) / 1000) == found.difference
    assert found.low <= found.difference <= found.high


@given(arrays(np.float64, 60, elements=st.sampled_from([0.0, 1.0])), arrays(np.float64, 60, elements=st.floats(0, 1)))
def test_turning_a_comparison_round_turns_its_sign(first: Scores, second: Scores) -> None:
    """Scores of zero and one, or graded ones: the other way round the difference has the other sign."""
    for other in (np.round(second), second):
        forth, back = compare(first, other), compare(other, first)
        assert pytest.approx((-back.difference, back.tied)) == (forth.difference, forth.tied)


def test_no_number_of_draws_shows_that_p_is_zero() -> None:
    """Where all draws lie on one side, p is what that many draws can tell, not nothing."""
    found = compare(np.linspace(0.5, 0.9, 100), np.linspace(0.1, 0.5, 100))
    assert pytest.approx(2 / 2001) == found.p_value


def test_the_paired_error_is_that_of_the_mean_difference() -> None:
    """For right and wrong as for graded scores: the spread of the rows' differences over the root of their number."""
    random = np.random.default_rng(3)
    first, second = random.uniform(size=(2, 400))
    for scores in ((first, second), (np.round(first), np.round(second))):
        gained = scores[0] - scores[1]
        assert pytest.approx(gained.std() / 20) == compare(*scores).standard_error


def test_graded_scores_are_resampled() -> None:
    """A steady small gain on every row is no tie, the same gain under a hundred times the noise is one."""
    random = np.random.default_rng(1)
    base = random.uniform(size=200)
    assert not compare(base + 0.01 + random.normal(0, 0.01, 200), base).tied
    assert compare(base + 0.01 + random.normal(0, 1.0, 200), base).tied


@pytest.mark.parametrize("rows", [0, 3])
def test_other_rows_cannot_be_compared(rows: int) -> None:
    """Scores of another number of rows, or of none, are refused with both numbers."""
    with pytest.raises(ValueError, match="cannot be compared row by row"):
        compare(np.zeros(rows), np.zeros(rows * 2))


def test_paired_noise_counts_only_rows_that_differ() -> None:
    """Ten rows of a thousand gained and none lost is one point, with a standard error of a third of that."""
    rows = np.arange(1000)
    assert pytest.approx((0.01, 10**0.5 / 1000)) == paired_difference(rows < 810, rows < 800)
