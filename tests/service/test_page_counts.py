"""What the page counts and says: bounded, adding up, in the words of the documentation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.canary import Trial
from router.contract import Record
from router.family import Evidence, Family, VariantProfile
from router.latency import table
from router.request import NEVER
from router.words import Escalation, Outcome, Reason
from service.canary_trial import Report, State
from service.page.expectation import Expectation
from service.page.messages import TOLD_S, trial_line
from service.page.tally import DECISIONS, EDGES_S, HISTORY_S, WINDOW_S, History, quantile_s
from service.page.words import CHOSEN, ESCALATIONS, REFUSED

DOCS = Path(__file__).parent.parent.parent / "docs" / "reasons.md"
FAMILY = Family("f", (VariantProfile("q", 0.7, table((1,), (0.001,))), VariantProfile("b", 0.9, table((1,), (0.01,)))))


def record(**values: object) -> Record:
    """A request that `q` answered alone in time, but for these values."""
    # Unformatted: one value a line would be a page.
    usual: dict[str, object] = {
        "request_id": 1, "family": "f", "revision": "1", "variant": "q", "row_variants": ("q",), "path": ("q",),
        "outcome": Outcome.SERVED, "reason": Reason.FITS_SLACK, "rows": 1, "arrival_s": 1.0, "finished_s": 1.01,
        "queue_s": 0.0, "compute_s": 0.01, "slo_s": 0.05, "slo_met": True, "quality": 0.7, "batch_size": 1,
        "tenant": "t", "service_class": "default", "predicted_s": 0.01, "observed_s": 0.01,
    }  # fmt: skip
    return Record(**{**usual, **values})  # type: ignore[arg-type]  # the table above has the types


REFUSAL = record(
    variant="", path=(), outcome=Outcome.REJECTED_INFEASIBLE, reason=Reason.DEADLINE_INFEASIBLE, slo_met=False
)


def test_every_word_has_its_sentence() -> None:
    """No reason and no escalation is shown without words, and none has words twice."""
    assert set(Reason) == set(CHOSEN) | set(REFUSED)
    assert set() == set(CHOSEN) & set(REFUSED)
    assert set(Escalation) == set(ESCALATIONS)


@pytest.mark.parametrize(
    ("heading", "before", "words"),
    [
        ("the variant was chosen because", "", CHOSEN),
        ("meaning", "", REFUSED),
        ("a better variant", "a better variant ", ESCALATIONS),
    ],
)
def test_the_sentences_are_those_of_the_documentation(heading: str, before: str, words: Mapping[str, str]) -> None:
    """A word that docs/reasons.md explains is explained in the same words on the page."""
    documented: dict[str, str] = {}
    last = ""
    for line in DOCS.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            last = ""
        elif not last:
            last = cells[-1]
        elif last == heading and line.startswith("| `"):
            documented[cells[0].split(",")[0].strip("`")] = before + cells[-1].replace("`", "")
    assert len(documented) >= 5
    assert documented == {word: words[word] for word in documented}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "On trial: revision 2 beside 1, 5 % of the callers: 9 of 1000 answers, 1 of 8 compared differ."),
        ({"rules": Trial(0.05, shadow=True)}, "On trial: revision 2 beside 1, copies only: 9 of 1000 answers, "),
        ({"state": State.PASSED}, "Trial of revision 2 beside 1: passed after 9 of 1000 answers, "),
        ({"state": State.SLOW, "ended_s": 99.0, "why": "so"}, "Trial of revision 2 beside 1: slow (so) after 9 of "),
        ({"state": State.SLOW, "ended_s": 99.0 - TOLD_S - 1.0}, ""),
    ],
)
def test_a_trial_is_a_sentence_while_it_runs_and_for_a_while_after_it(values: dict[str, Any], said: str) -> None:
    """Its revisions, who takes part, how far it is, and how it ended."""
    report = Report("f", "2", "1", Trial(0.05), 1.0, answers=9, agreed=7, disagreed=1)
    for name, value in values.items():
        setattr(report, name, value)
    assert trial_line(report, 99.0).startswith(said)
    assert bool(said) == bool(trial_line(report, 99.0))
    assert not trial_line(None, 99.0)


@given(st.lists(st.tuples(st.integers(0, 400), st.booleans(), st.floats(0.0, 20.0)), max_size=60))
def test_a_history_is_bounded_and_adds_up(events: list[tuple[int, bool, float]]) -> None:
    """Every request is in exactly one second, answered or refused, and no more is kept than said."""
    history = History(Expectation(FAMILY))
    for at, answered, total_s in sorted(events):
        history.add(record(finished_s=1.0 + total_s) if answered else REFUSAL, at)
    last = max((at for at, *_ in events), default=0)
    history.roll(last + 1)
    assert len(events) == history.total
    assert [second.at for second in history.seconds] == sorted({at for at, *_ in events})[-HISTORY_S:]
    for second in history.seconds:
        assert second.requests == sum(second.answers.values()) + second.refused
        assert 0 <= second.met <= second.judged <= second.requests
        assert 0.0 <= second.expected <= second.requests
    assert len(history.decisions) == min(len(events), DECISIONS)
    assert sum(t.requests for t in history.window(last + 1)) == sum(at > last - WINDOW_S for at, *_ in events)


@given(st.lists(st.floats(2e-4, 9.0), min_size=1, max_size=50), st.sampled_from([0.5, 0.99]))
def test_percentiles_are_off_by_one_step_of_the_histogram_at_most(totals_s: list[float], share: float) -> None:
    """The quantile is the upper edge of the bucket that holds the exact one."""
    history = History(Expectation(FAMILY))
    for total_s in totals_s:
        history.add(record(arrival_s=0.0, finished_s=total_s), 5)
    history.roll(6)
    exact = sorted(totals_s)[max(0, math.ceil(share * len(totals_s)) - 1)]
    found = quantile_s(history.window(6), share)
    assert exact <= found * (1 + 1e-9)
    assert found <= max(EDGES_S[0], exact * 1.15) * (1 + 1e-9)


def test_no_answers_have_no_percentiles() -> None:
    """Not a number, rather than zero."""
    assert math.isnan(quantile_s([], 0.5))


def test_an_answer_is_expected_to_be_as_right_as_held_out_rows_of_its_confidence() -> None:
    """A sure first answer counts more than its variant's mean, a better one on an unsure row less than its own."""
    sure = np.repeat([False, True], 50)
    confidence = np.where(sure, 0.95, 0.55).astype(np.float32)
    correct = np.stack([sure, sure | (np.arange(100) % 2 == 0)])
    evidence = Evidence(correct, np.stack([confidence, confidence]))
    expectation = Expectation(Family("f", FAMILY.variants, evidence=evidence))
    cases = [
        (record(confidence=0.95), 1.0),
        (record(confidence=0.55), 0.0),
        (record(confidence=0.55, path=("q", "b"), variant="b", quality=0.9), 0.5),
        (record(confidence=0.0), 0.7),
        (record(confidence=0.95, rows=2, quality=0.8), 0.8),
        (record(confidence=0.95, path=("q", "gone"), quality=0.6), 0.6),
    ]
    assert [expected for _, expected in cases] == [expectation.of(one) for one, _ in cases]


def test_late_and_refused_requests_are_not_expected_to_be_right() -> None:
    """Only what is answered in time counts; a caller who hung up does not count at all."""
    history = History(Expectation(FAMILY))
    for one in (
        record(),
        record(slo_met=False, outcome=Outcome.SERVED_LATE),
        REFUSAL,
        record(variant="", path=(), outcome=Outcome.CANCELLED, reason=Reason.CLIENT_GONE, slo_met=False),
        record(slo_s=NEVER),
    ):
        history.add(one, 3)
    history.roll(4)
    (second,) = history.seconds
    assert (4, 3, 1, 1) == (second.requests, second.judged, second.met, second.refused)
    assert 1.4 == pytest.approx(second.expected)
