"""Scores: what counts as good, over which requests, and when a run is not a measurement."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.generator_faults import Sending
from loadtests.outcomes import Fate, Results
from loadtests.scoring import Score, score
from loadtests.workload import Workload

LABEL = np.array([0, 1])


def judged(rows: list[tuple[Fate, str, int, float]], slo_s: float = 0.1, sending: Sending | None = None) -> Score:
    """Score of requests for sample 0 (label 0), given as fate, variant, answered label and latency."""
    count = len(rows)
    workload = Workload(np.linspace(0.0, 1.0, count), np.full(count, slo_s), np.zeros(count, dtype=np.int64))
    results = Results.pending(count)
    for index, (fate, variant, label, latency_s) in enumerate(rows):
        results.fate[index], results.variant[index] = fate, variant
        results.label[index], results.latency_s[index] = label, latency_s
    return score(workload, LABEL, results, sending)


GOOD = (Fate.ANSWERED, "large", 0, 0.05)
WRONG = (Fate.ANSWERED, "small", 1, 0.02)
LATE = (Fate.ANSWERED, "large", 0, 0.15)
REFUSED = (Fate.REFUSED, "", -1, math.inf)


@pytest.mark.parametrize(
    ("rows", "effective_accuracy", "attainment", "accuracy"),
    [
        ([GOOD], 1.0, 1.0, 1.0),
        ([WRONG], 0.0, 1.0, 0.0),
        ([LATE], 0.0, 0.0, 1.0),
        ([GOOD, WRONG, LATE, REFUSED], 0.25, 0.5, 2 / 3),
        ([GOOD, (Fate.EXPIRED, "", -1, math.inf)], 0.5, 0.5, 1.0),
        ([GOOD, (Fate.FAILED, "", -1, math.inf)], 0.5, 0.5, 1.0),
        ([GOOD, (Fate.NOT_SENT, "", -1, math.inf)], 0.5, 0.5, 1.0),
    ],
)
def test_shares_are_of_all_arrivals(
    rows: list[tuple[Fate, str, int, float]], effective_accuracy: float, attainment: float, accuracy: float
) -> None:
    """Refused, late and lost requests count against the server; accuracy alone is of the answered ones."""
    result = judged(rows)
    assert (effective_accuracy, attainment, accuracy) == (result.effective_accuracy, result.attainment, result.accuracy)


def test_an_answer_at_the_very_deadline_is_on_time() -> None:
    """The SLO is met up to and including its last moment."""
    assert 1.0 == judged([(Fate.ANSWERED, "large", 0, 0.1)], slo_s=0.1).attainment


def test_nothing_answered_has_no_percentiles_but_a_score() -> None:
    """A server that refuses everything scores zero, without an accuracy."""
    result = judged([REFUSED, REFUSED])
    assert (0.0, 0.0, {}) == (result.effective_accuracy, result.attainment, result.answers)
    assert math.isnan(result.accuracy)
    assert math.isnan(result.p99_s)


def test_answers_are_counted_by_variant() -> None:
    """Shares of the answered requests, late ones included."""
    assert {"large": 0.75, "small": 0.25} == judged([GOOD, GOOD, LATE, WRONG, REFUSED]).answers


def test_each_slo_is_scored_by_itself() -> None:
    """A mix is judged as a whole and per SLO."""
    workload = Workload(np.array([0.0, 1.0, 2.0]), np.array([0.01, 0.01, 1.0]), np.zeros(3, dtype=np.int64))
    results = Results.pending(3)
    results.fate[:], results.label[:], results.latency_s[:] = Fate.ANSWERED, 0, [0.005, 0.5, 0.5]
    by_slo = score(workload, LABEL, results).by_slo
    assert [(0.01, 2, 0.5), (1.0, 1, 1.0)] == [(slo.slo_s, slo.arrivals, slo.attainment) for slo in by_slo]


PUNCTUAL = Sending(lag_s=np.full(100, 0.0002), cpu_share=0.3, most_in_flight=5)


@pytest.mark.parametrize(
    ("sending", "last", "valid"),
    [
        (None, GOOD, True),
        (PUNCTUAL, GOOD, True),
        (replace(PUNCTUAL, lag_s=np.full(100, 0.0011)), GOOD, False),
        (replace(PUNCTUAL, lag_s=np.array([*[0.0002] * 99, 5.0])), GOOD, False),
        (replace(PUNCTUAL, cpu_share=0.95), GOOD, False),
        (PUNCTUAL, (Fate.NOT_SENT, "", -1, math.inf), False),
    ],
)
def test_a_run_counts_only_if_the_generator_kept_up(
    sending: Sending | None, last: tuple[Fate, str, int, float], valid: bool
) -> None:
    """Late sending, a full core or unsent requests make a run invalid, whatever its score."""
    result = judged([GOOD, last], sending=sending)
    assert valid == result.valid
    assert valid == (result.faults == ())


@given(
    st.lists(
        st.tuples(st.sampled_from(list(Fate)), st.sampled_from(["a", "b"]), st.integers(0, 1), st.floats(0.0, 0.2)),
        min_size=1,
        max_size=50,
    )
)
def test_scores_are_consistent(rows: list[tuple[Fate, str, int, float]]) -> None:
    """Effective accuracy never exceeds attainment, attainment never the answered share, and fates sum to one."""
    result = judged(rows)
    assert result.effective_accuracy <= result.attainment <= result.fates["answered"]
    assert pytest.approx(1.0) == sum(result.fates.values())
    assert pytest.approx(1.0 if result.fates["answered"] else 0.0) == sum(result.answers.values())
