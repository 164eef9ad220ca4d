"""How sure shares and differences are: right where requests are independent, wider where they share their fate."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from loadtests.harness.uncertainty import Measure, difference, share_interval, share_of_rows


@given(blocks=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=30))
def test_an_interval_holds_its_value(blocks: list[tuple[int, int]]) -> None:
    """Whatever the blocks, the interval is inside [0, 1] and around the share."""
    hits = [min(pair) for pair in blocks]
    counts = [max(pair) for pair in blocks]
    value, low, high = share_interval(hits, counts)
    if sum(counts) == 0:
        assert (True, 0.0, 1.0) == (math.isnan(value), low, high)
    else:
        assert 0.0 <= low <= value + 1e-12
        assert value - 1e-12 <= high <= 1.0
        assert pytest.approx(sum(hits) / sum(counts)) == value


def test_all_in_time_needs_enough_requests_to_be_sure() -> None:
    """400 of 400 are surely 99 %, 300 of 300 are not (Wilson)."""
    assert share_interval([200, 200], [200, 200]).low > 0.99 > share_interval([150, 150], [150, 150]).low


def test_requests_that_share_their_fate_tell_less() -> None:
    """The same share is less sure where one block has all the misses."""
    even, lumped = share_interval([45] * 10, [50] * 10), share_interval([50] * 9 + [0], [50] * 10)
    assert pytest.approx(even.value) == lumped.value
    assert lumped.high - lumped.low > 2.0 * (even.high - even.low)


@pytest.mark.parametrize("times", [1, 100])
def test_a_row_asked_again_tells_nothing_new(times: int) -> None:
    """Rows that are always answered alike are as sure as they are many, however often they are asked."""
    row = np.repeat(np.arange(50), times)
    once, again = share_of_rows(np.arange(50) < 40, np.arange(50)), share_of_rows(row < 40, row)
    assert pytest.approx(once) == again
    assert once.high - once.low > 0.2


def share_of(hits: list[int], counts: list[int]) -> Measure:
    hit, count = np.array(hits), np.array(counts)

    def measure(times: NDArray[np.int64]) -> float:
        return float(times @ hit) / float(times @ count)

    return measure


def test_a_paired_difference_does_not_see_what_both_share() -> None:
    """Blocks that are bad for both leave a small difference clear, which unpaired it is not."""
    rng = np.random.default_rng(0)
    shared = rng.integers(10, 90, 20)
    one, other = share_of(shared.tolist(), [100] * 20), share_of((shared + 5).tolist(), [100] * 20)
    paired = difference(one, other, (20, 20), paired=True)
    apart = difference(one, other, (20, 20), paired=False)
    assert pytest.approx(0.05) == paired.value == apart.value
    assert paired.low > 0.0 > apart.low


def test_one_block_tells_no_uncertainty() -> None:
    """Of a single block the difference is known, and how sure it is is not."""
    found = difference(share_of([5], [10]), share_of([6], [10]), (1, 1), paired=False)
    assert [pytest.approx(0.1), -math.inf, math.inf] == list(found)


@pytest.mark.parametrize("count", [1, 7, 90, 571, 100_000])
def test_all_and_nothing_are_within_their_intervals(count: int) -> None:
    """To the last digit: who is asked for 100 % and answers all in time has not missed it."""
    assert (1.0, 0.0) == (share_interval([count], [count]).high, share_interval([0], [count]).low)
