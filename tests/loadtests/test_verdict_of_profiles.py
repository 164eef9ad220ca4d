"""What spikes, soaks, searches and smoke tests are judged by."""

from __future__ import annotations

import numpy as np
import pytest

from loadtests.harness.cargo import Way
from loadtests.harness.ratesearch import Found, RateSearch, Trial
from loadtests.harness.search import SearchOptions, faults_of, sentence
from loadtests.harness.search import checks_of as search_checks
from loadtests.harness.smoke import Tried, check_of
from loadtests.harness.soak import SoakOptions, drift, drift_check, growth_check, growth_of
from loadtests.harness.soak import checks_of as soak_checks
from loadtests.harness.spike import SpikeOptions, plan_of, recovery_check, recovery_s
from loadtests.harness.uncertainty import Interval
from loadtests.harness.verdict import Wanted
from loadtests.outcomes import Fate
from loadtests.traces import TraceError
from tests.loadtests.judged import answered, load, subject


@pytest.mark.parametrize(
    ("tried", "passed"),
    [
        (Tried(Way("f"), Fate.ANSWERED, "any", ""), True),
        (Tried(Way("f", "a"), Fate.ANSWERED, "a", ""), True),
        (Tried(Way("f", "a"), Fate.ANSWERED, "b", ""), False),
        (Tried(Way("f", "a"), Fate.REFUSED, "", "not_loaded"), False),
        (Tried(Way("f"), Fate.FAILED, "", "status 500"), False),
    ],
)
def test_a_pinned_variant_has_to_answer_itself(tried: Tried, passed: bool) -> None:
    """A family may be answered by any of its variants."""
    assert passed == check_of(tried).passed


def arrivals_after_a_burst(late_until_s: float) -> tuple[np.ndarray, np.ndarray]:
    arrival_s = np.arange(0.0, 30.0, 0.01)
    return arrival_s, ~((arrival_s >= 10.0) & (arrival_s < 15.0 + late_until_s))


@pytest.mark.parametrize(("late_s", "expected"), [(0.0, 0.0), (0.4, 0.5), (2.2, 2.5), (14.9, None)])
def test_recovery_is_the_end_of_the_last_bad_window(late_s: float, expected: float | None) -> None:
    """In windows of half a second after the burst's end; None where the last one still is bad."""
    arrival_s, in_time = arrivals_after_a_burst(late_s)
    assert expected == recovery_s(arrival_s, in_time, 15.0, 30.0, 0.99)


def test_single_misses_do_not_delay_recovery() -> None:
    """One late request now and then is not surely below 99 %."""
    arrival_s, in_time = arrivals_after_a_burst(1.0)
    in_time[np.flatnonzero(arrival_s > 17.0)[::150]] = False
    assert 1.0 == recovery_s(arrival_s, in_time, 15.0, 30.0, 0.99)


def test_without_requests_after_it_nobody_knows() -> None:
    """A burst at the very end has no recovery to be seen."""
    assert None is recovery_s(np.array([1.0, 2.0]), np.array([True, True]), 5.0, 10.0, 0.99)
    assert (False, True) == (recovery_check(None, 5.0).passed, recovery_check(5.0, 5.0).passed)


def test_a_spike_is_its_base_and_a_burst_on_it() -> None:
    """The rate is the base outside and `factor` times that within; a burst that leaves no time is refused."""
    plan, begin_s, end_s = plan_of(subject(), load(100.0, 30.0), SpikeOptions(factor=5.0, burst_s=4.0), 3)
    arrival_s = plan.workload.arrival_s
    within = ((arrival_s >= begin_s) & (arrival_s < end_s)).sum()
    assert (10.0, 14.0) == (begin_s, end_s)
    assert pytest.approx(5.0 * 100.0 * 4.0, rel=0.1) == within
    assert pytest.approx(100.0 * 26.0, rel=0.1) == len(arrival_s) - within
    with pytest.raises(TraceError, match="leaves no time to recover"):
        plan_of(subject(), load(100.0, 6.0), SpikeOptions(burst_s=4.0), 3)


@pytest.mark.parametrize(("last_s", "passed"), [(0.01, True), (0.011, True), (0.02, False)])
def test_latency_drifts_only_where_that_is_sure(last_s: float, passed: bool) -> None:
    """10 % more is within what is allowed, twice as much is not."""
    of = subject()
    plan = of.draw(load(100.0, 60.0), 1)
    run = answered(of, plan, np.linspace(0.01, last_s, len(plan)).tolist(), refused=0.0)
    found = drift(run, 0.5)
    assert passed == drift_check("p50", found, 0.2).passed
    assert found.low < found.value < found.high


@pytest.mark.parametrize(
    ("told", "passed"),
    [((), [None, None, None]), (("drift",), [False, False, None]), (("growth",), [None, None, False])],
)
def test_what_a_soak_was_asked_to_judge_and_cannot_is_missed(told: tuple[str, ...], passed: list[bool | None]) -> None:
    """What nobody asked for is left open, and said to be."""
    of = subject()
    run = answered(of, of.draw(load(20.0, 1.0), 1))
    checks = soak_checks(run, [], Wanted(0.1), SoakOptions(told=told))
    assert passed == [check.passed for check in checks if check.what.startswith(("drift", "growth"))]


def test_too_short_a_soak_tells_no_drift() -> None:
    """With fewer than three blocks nothing can be compared, and nothing is claimed."""
    of = subject()
    run = answered(of, of.draw(load(20.0, 1.0), 1))
    assert None is drift_check("p50", drift(run, 0.5), 0.2).passed


@pytest.mark.parametrize(
    ("readings", "growth"),
    [
        ([], None),
        ([(0.0, 1.0), (1.0, 1.0)], None),
        ([(float(at), 100.0) for at in range(20)], 0.0),
        ([(float(at), 50.0 if at < 2 else 100.0) for at in range(20)], 0.0),
        ([(float(at), 100.0 if at < 10 else 150.0) for at in range(20)], 0.5),
    ],
)
def test_memory_grows_from_the_first_third_to_the_last(
    readings: list[tuple[float, float]], growth: float | None
) -> None:
    """What warms up in the first tenth does not count; too few readings tell nothing."""
    assert growth == growth_of(readings)
    assert {None: None, 0.0: True, 0.5: False}[growth] == growth_check(growth, 0.1).passed


def found(rate: float | None, limit: str) -> Found:
    return Found(rate, Interval(0.995, 0.99, 0.999), rate, None, limit)


@pytest.mark.parametrize(
    ("rate", "limit", "enough", "passed", "faults"),
    [
        (400.0, "gateway", None, True, False),
        (400.0, "gateway", 300.0, True, False),
        (400.0, "gateway", 500.0, False, False),
        (400.0, "generator", 300.0, True, False),
        (400.0, "generator", 500.0, False, True),
        (400.0, "generator", None, True, False),
        (None, "generator", None, False, True),
        (None, "gateway", None, False, False),
    ],
)
def test_a_search_passes_with_a_rate_that_is_enough(
    rate: float | None, limit: str, enough: float | None, passed: bool, faults: bool
) -> None:
    """A generator that cannot send what is asked for leaves it open; one that has sent it proves it."""
    state = RateSearch(0.99, 50.0, 1.0, 1000.0)
    state.add(Trial(800.0, [1], [1], "late"))
    options = SearchOptions(enough=enough)
    (check,) = search_checks(found(rate, limit), Wanted(), options)
    assert (passed, faults) == (check.passed, bool(faults_of(found(rate, limit), state, options)))


@pytest.mark.parametrize(
    ("one", "says"),
    [
        (Found(412.3, Interval(0.995, 0.99, 1.0), 396.0, 430.0, "gateway"), "412.3 requests/s with 99 % answered"),
        (Found(412.3, Interval(0.995, 0.99, 1.0), 412.3, None, "generator"), "at least 412.3"),
        (Found(None, None, None, 1.0, "gateway"), "at no rate that was tried are 99 % answered within 50 ms"),
        (Found(None, None, None, None, "generator"), "the generator cannot keep up with any rate"),
    ],
)
def test_the_answer_in_words(one: Found, says: str) -> None:
    """It names the rate, the share and the SLO, or why there is none."""
    assert says in sentence(one, Wanted(), "50")
