"""The search for the highest rate: it finds the edge, says how sure it is, and ends whatever it is told."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.harness.ratesearch import MOST_TRIALS, Found, RateSearch, Standing, Trial, requests_to_tell

BLOCKS = 10


def searched(
    met: Callable[[float, int], float],
    *,
    target: float = 0.99,
    first: float = 50.0,
    limit: float = math.inf,
    repeats: int = 3,
    precision: float = 0.05,
) -> tuple[Found, RateSearch]:
    """Search where a trial at a rate has a share in time by rate and number; beyond `limit` the generator is late."""
    search = RateSearch(target, first, 1.0, 100_000.0, precision, repeats)
    while (rate := search.next_rate()) is not None:
        each = max(100, math.ceil(requests_to_tell(target) / BLOCKS))
        hits = [round(each * met(rate, len(search.trials)))] * BLOCKS
        search.add(Trial(rate, hits, [each] * BLOCKS, "late" if rate > limit else ""))
    return search.found(), search


@pytest.mark.parametrize("edge", [3.0, 47.0, 50.0, 51.0, 400.0, 31_415.0])
@pytest.mark.parametrize("first", [1.0, 50.0, 5000.0])
def test_a_sharp_edge_is_found_within_the_precision(edge: float, first: float) -> None:
    """From below or above, the answer is below the edge by 5 % at most, and both bounds are sure."""
    found, _ = searched(lambda rate, _: 1.0 if rate <= edge else 0.5, first=first)
    assert found.rate is not None
    assert found.rate <= edge < found.rate * 1.0501
    assert found.sure_low == found.rate
    assert found.sure_high is not None
    assert edge < found.sure_high
    assert "gateway" == found.limit


def test_the_generator_may_be_what_limits() -> None:
    """Where it is late before the gateway is, the answer is a lower bound that says so."""
    found, _ = searched(lambda rate, _: 1.0, limit=300.0)
    assert found.rate is not None
    assert (True, "generator", None) == (285.0 < found.rate <= 300.0, found.limit, found.sure_high)


def test_where_nothing_meets_the_target_there_is_no_rate() -> None:
    """Down to the least rate nothing is fast enough."""
    found, search = searched(lambda rate, _: 0.5)
    assert (None, None, "gateway") == (found.rate, found.sure_low, found.limit)
    assert 1.0 == min(trial.rate for trial in search.trials)


def test_where_everything_meets_the_target_the_range_ends_it() -> None:
    """The highest rate that may be tried is the answer, and `limit` says that more was not tried."""
    found, _ = searched(lambda rate, _: 1.0)
    assert (100_000.0, "range") == (found.rate, found.limit)


def test_a_disturbed_trial_is_outvoted() -> None:
    """One bad trial at a rate that is fine is repeated, and the trials count together."""
    disturbed = 0.985
    found, search = searched(lambda rate, number: disturbed if number == 0 else (1.0 if rate <= 90 else 0.0))
    assert [50.0, 50.0] == [trial.rate for trial in search.trials[:2]]
    assert found.rate is not None
    assert 85.0 < found.rate <= 90.0


def test_the_answer_stands_on_several_trials() -> None:
    """The rate that is reported was tried as often as rates near the edge are."""
    found, search = searched(lambda rate, _: 1.0 if rate <= 400 else 0.0, repeats=4)
    assert 4 == len([trial for trial in search.trials if trial.rate == found.rate])


def test_invalid_trials_are_no_evidence() -> None:
    """A rate with only invalid trials is out of reach after so many; with a valid one, that one counts."""
    search = RateSearch(0.9, 10.0, 1.0, 100.0, repeats=2)
    search.add(Trial(10.0, [0], [100], "late"))
    assert (Standing.OPEN, 10.0) == (search.standing(10.0), search.next_rate())
    search.add(Trial(10.0, [0], [100], "late"))
    assert Standing.OUT_OF_REACH == search.standing(10.0)
    search.add(Trial(10.0, [100], [100]))
    assert Standing.MEETS == search.standing(10.0)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), target=st.sampled_from([0.5, 0.9, 0.99, 0.999]), repeats=st.integers(1, 4))
def test_it_ends_whatever_comes_back(seed: int, target: float, repeats: int) -> None:
    """Also where shares are noise: after a bounded number of trials, with bounds around the answer."""
    rng = np.random.default_rng(seed)
    found, search = searched(lambda rate, _: float(rng.uniform(0.0, 1.0)), target=target, repeats=repeats)
    assert len(search.trials) <= MOST_TRIALS
    if found.rate is not None:
        assert found.sure_low is None or found.sure_low <= found.rate
        assert found.sure_high is None or found.rate < found.sure_high
