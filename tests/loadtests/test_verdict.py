"""Verdicts: from scores, thresholds and faults to outcomes and exit codes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.generator_faults import Sending, generator_faults
from loadtests.harness.measured import Run
from loadtests.harness.verdict import Check, Outcome, Wanted, bound, checks_of, percent, verdict
from loadtests.outcomes import Results
from tests.loadtests.judged import answered, load, member, subject

FINE, MISSED, OPEN = (Check("x", passed, "1", "2") for passed in (True, False, None))


@pytest.mark.parametrize(
    ("checks", "faults", "interrupted", "outcome", "code"),
    [
        ([FINE], [], False, Outcome.PASSED, 0),
        ([FINE, OPEN], [], False, Outcome.PASSED, 0),
        ([], [], False, Outcome.PASSED, 0),
        ([FINE, MISSED], [], False, Outcome.FAILED, 4),
        ([FINE], ["late"], False, Outcome.INVALID, 3),
        ([MISSED], ["late"], False, Outcome.INVALID, 3),
        ([MISSED], ["late"], True, Outcome.INTERRUPTED, 130),
    ],
)
def test_outcomes_and_exit_codes(
    checks: list[Check], faults: list[str], interrupted: bool, outcome: Outcome, code: int
) -> None:
    """Who was interrupted has no verdict, who was not measured neither passed nor failed."""
    found = verdict(checks, faults, interrupted=interrupted)
    assert (outcome, code) == (found.outcome, found.exit_code)


def steady_run(**changes: float) -> Run:
    of = subject()
    return answered(of, of.draw(load(), 1), refused=changes.get("refused", 0.1), lag_s=changes.get("lag_s", 0.0002))


@pytest.mark.parametrize(
    ("wanted", "passed"),
    [
        (Wanted(0.5), [True, True]),
        (Wanted(0.95), [False, True]),
        (Wanted(0.5, effective_accuracy=0.7), [True, True, True]),
        (Wanted(0.5, effective_accuracy=0.9), [True, True, False]),
        (Wanted(0.5, p99_s=0.02), [True, True, True]),
        (Wanted(0.5, p99_s=0.01), [True, True, False]),
    ],
)
def test_scores_are_held_against_what_is_wanted(wanted: Wanted, passed: list[bool]) -> None:
    """A tenth is refused and a tenth of the rest is wrong."""
    assert passed == [check.passed for check in checks_of(steady_run().score, wanted)]


def test_what_nobody_knows_is_not_judged() -> None:
    """Rows without labels have no accuracy, anywhere; who asks for one all the same misses it."""
    of = subject(member(labelled=False))
    run = answered(of, of.draw(load(), 1))
    (check,) = [check for check in checks_of(run.score, Wanted(0.1, 0.5)) if check.what == "correct in time"]
    assert (False, "rows have no labels") == (check.passed, check.found)
    assert None is run.values()["score"]["effective_accuracy"]


def test_a_late_generator_is_no_measurement() -> None:
    """More than a millisecond at the 99th percentile is a fault, less is none."""
    of = subject()
    early, late = (answered(of, of.draw(load(200.0), 1), lag_s=lag_s) for lag_s in (0.0009, 0.0011))
    assert () == early.faults(0.9)
    assert ("dispatch lag p99 is 1.10 ms, at most 1 ms is allowed",) == late.faults(0.9)


@pytest.mark.parametrize(
    ("requests", "late", "said"),
    [
        (300, 4, ""),
        (300, 20, "p96.7 is 2.00 ms (of 300 requests, too few for a p99), at most 1 ms is allowed"),
        (1000, 9, ""),
        (1000, 20, "p99 is 2.00 ms, at most 1 ms is allowed"),
        (10_000, 90, ""),
        (10_000, 200, "p99 is 2.00 ms, at most 1 ms is allowed"),
        (5, 2, ""),
        (5, 5, "p50 is 2.00 ms (of 5 requests, too few for a p99), at most 1 ms is allowed"),
    ],
)
def test_few_requests_are_judged_by_more_than_the_worst_of_them(requests: int, late: int, said: str) -> None:
    """The bound stays a millisecond; of fewer than a thousand requests the ten latest do not decide."""
    lag_s = np.where(np.arange(requests) < late, 0.002, 0.0002)
    found = generator_faults(Results.pending(requests), Sending(lag_s, 0.1, 7))
    assert ([f"dispatch lag {said}"] if said else []) == found


def test_a_stall_counts_among_few_requests_too() -> None:
    """Four of three hundred may leave a few milliseconds late, not more."""
    lag_s = np.where(np.arange(300) < 4, 0.02, 0.0002)
    found = generator_faults(Results.pending(300), Sending(lag_s, 0.1, 7))
    assert ["dispatch lag p99 is 20.00 ms, at most 10 ms is allowed of 300 requests"] == found


def test_accuracy_of_a_few_rows_claims_no_more_than_they_tell() -> None:
    """One row of eight is always wrong, in a thousand requests: as sure as eight rows are, which the verdict says."""
    of = subject()
    run = answered(of, of.draw(load(100.0, 10.0), 1), refused=0.0)
    truth, sample = of.label, run.ran.plan.workload.sample
    run.ran.results.label[:] = np.where(sample == 3, 1 - truth[sample], truth[sample])
    sure = run.effective_accuracy
    assert sure is not None
    assert sure.low < 0.6
    assert sure.high > 0.97
    (check,) = (
        check for check in checks_of(run.score, Wanted(0.1, 0.5), run.accuracy_rests_on) if "correct" in check.what
    )
    assert check.found == f"{percent(sure.value)} (8 distinct rows, 95 %: {percent(sure.low)} to {percent(sure.high)})"


def test_rows_that_are_all_answered_rightly_are_no_certainty() -> None:
    """Eight rows right a thousand times leave room for one in five that is wrong."""
    of = subject()
    run = answered(of, of.draw(load(100.0, 10.0), 1), refused=0.0)
    run.ran.results.label[:] = of.label[run.ran.plan.workload.sample]
    sure = run.effective_accuracy
    assert sure is not None
    assert (1.0, 1.0) == (sure.value, sure.high)
    assert sure.low < 0.8
    assert run.attainment.low > 0.99


@pytest.mark.parametrize(("attainment", "faults"), [(0.99, 0), (0.999, 1), (1.0, 1)])
def test_lag_that_decides_is_a_fault(attainment: float, faults: int) -> None:
    """0.8 % of the requests were late because they left late: too many where 0.1 % may be, few enough for 1 %."""
    of = subject()
    run = answered(of, of.draw(load(100.0, 10.0), 1), 0.02, refused=0.0)
    held = np.arange(len(run.ran.plan)) % 125 == 0
    run.ran.results.latency_s[held] += 0.05
    run.ran.sending.lag_s[held] += 0.05
    for found in (run.faults(attainment), run.generator_faults(attainment)):
        assert faults == len(found)
        assert all("own lag made 0.8" in fault for fault in found)


@given(share=st.floats(0.0, 1.0))
def test_only_all_is_a_hundred_percent(share: float) -> None:
    """A share short of all is never shown as all."""
    assert (percent(share) == "100 %") == (share == 1.0)
    assert share == 1.0 or not percent(share).startswith("100")


def test_thresholds_are_shown_as_they_were_given() -> None:
    """Without digits that nobody asked for."""
    assert ["99 %", "99.9 %", "0 %"] == [bound(0.99), bound(0.999), bound(0.0)]
    assert "-" == percent(math.nan)
