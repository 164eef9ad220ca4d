"""Kept answers of requests with several rows: they go out together, and each row still counts."""

from __future__ import annotations

import pytest

from router.words import Escalation, Outcome
from tests.router.keeping import MARGIN_S, SURE, UNSURE, Bench, variants


def test_a_request_ends_with_the_last_of_its_rows() -> None:
    """Row 0 is answered twice, row 1 once; the record names both variants."""
    bench = Bench()
    bench.submit(rows=2)
    bench.answer(0, UNSURE, 0.001)
    bench.answer(1, SURE, 0.001)
    bench.answer(0, SURE, 0.010)
    record = bench.record()
    assert ("mixed", ("large", "small"), 0.875) == (record.variant, record.row_variants, record.quality)


def test_row_0_decides_what_the_record_says_of_escalation() -> None:
    """A better answer to row 1 alone is seen in the variants, not in the path of row 0."""
    bench = Bench()
    bench.submit(rows=2)
    bench.answer(0, SURE, 0.001)
    bench.answer(1, UNSURE, 0.001)
    bench.answer(1, SURE, 0.010)
    record = bench.record()
    assert (("small",), ("small", "large"), Escalation.CONFIDENT, SURE) == (
        record.path,
        record.row_variants,
        record.escalation,
        record.confidence,
    )


def test_a_kept_row_waits_for_a_row_without_an_answer() -> None:
    """At the alarm row 1 has none: the request ends with that, in time or not."""
    for now, outcome in ((0.0985, Outcome.SERVED), (0.15, Outcome.SERVED_LATE)):
        bench = Bench(slots=1)
        bench.submit(rows=2)
        bench.answer(0, UNSURE, 0.001)
        assert [1] == [dispatch.items[0].row for dispatch in bench.running]
        bench.poll(0.1 - MARGIN_S)
        assert (0, 0) == (len(bench.records), bench.scheduler.queued_rows)
        bench.answer(1, UNSURE, now)
        assert (outcome, ("small", "small"), now) == (
            bench.record().outcome,
            bench.record().row_variants,
            bench.record().finished_s,
        )


def test_after_the_alarm_the_last_first_answer_ends_the_wait_for_better_ones() -> None:
    """Row 0's better batch hangs, row 1's first one is slow: its answer completes the request."""
    bench = Bench()
    bench.submit(rows=2)
    bench.answer(0, UNSURE, 0.001)
    assert ["small", "large"] == variants(bench)
    bench.poll(0.1 - MARGIN_S)
    assert not bench.records
    bench.answer(1, UNSURE, 0.099)
    record = bench.record()
    assert (Outcome.SERVED, ("small", "small"), 0.099) == (record.outcome, record.row_variants, record.finished_s)
    bench.answer(0, SURE, 0.2)
    assert 1 == len(bench.records)


def test_after_the_alarm_a_better_answer_still_counts_while_another_row_has_none() -> None:
    """Row 0's better answer comes after the alarm and before row 1's first: the caller gets it."""
    bench = Bench()
    bench.submit(rows=2)
    bench.answer(0, UNSURE, 0.001)
    bench.poll(0.1 - MARGIN_S)
    bench.answer(0, SURE, 0.0985)
    assert not bench.records
    bench.answer(1, SURE, 0.099)
    assert ("large", "small") == bench.record().row_variants


def test_after_the_alarm_a_failed_better_batch_leaves_the_kept_answer() -> None:
    """Row 0 falls back on its first answer and the request still waits for row 1."""
    bench = Bench()
    bench.submit(rows=2)
    bench.answer(0, UNSURE, 0.001)
    bench.poll(0.1 - MARGIN_S)
    bench.fail(0, 0.0985)
    assert not bench.records
    bench.answer(1, SURE, 0.099)
    assert (Outcome.SERVED, ("small", "small")) == (bench.record().outcome, bench.record().row_variants)


def test_a_row_that_fails_fails_the_request_whatever_the_others_keep() -> None:
    """A request is answered whole or not at all, and its kept rows leave the queue."""
    bench = Bench(slots=1)
    bench.submit(rows=2)
    bench.answer(0, UNSURE, 0.001)
    bench.fail(1, 0.002)
    bench.fail(1, 0.003)
    assert (Outcome.FAILED, 0) == (bench.record().outcome, bench.scheduler.queued_rows)


def test_a_request_whose_timeout_passes_with_a_row_unanswered_expires() -> None:
    """One kept row is no answer."""
    bench = Bench(slots=1)
    bench.submit(rows=2, timeout_s=0.1)
    bench.answer(0, UNSURE, 0.001)
    bench.poll(0.1 - MARGIN_S)
    bench.poll(0.1)
    assert (Outcome.EXPIRED, 0) == (bench.record().outcome, bench.scheduler.queued_rows)


@pytest.mark.parametrize(("rows", "outcome"), [(1, Outcome.SERVED), (2, Outcome.FAILED)])
def test_at_shutdown_kept_answers_are_sent_where_they_are_whole(rows: int, outcome: Outcome) -> None:
    """Who has an answer for every row gets it; who lacks one fails; nothing waits any more."""
    bench = Bench(slots=1)
    bench.submit(rows=rows)
    bench.answer(0, UNSURE, 0.001)
    bench.scheduler.abandon_all(0.002)
    bench.poll(0.002)
    assert (outcome, 0) == (bench.record().outcome, bench.scheduler.queued_rows)


def test_a_row_that_ends_after_the_alarm_is_not_kept() -> None:
    """The alarm rang while two rows ran; their answers, unsure or not, end the wait and leave no row behind."""
    bench = Bench(slots=2)
    latency = bench.scheduler.latency("scripted")
    bench.submit(rows=3)
    latency._late_s = 0.01  # the alarm is set early, and the machine becomes punctual before it rings
    bench.answer(0, UNSURE, 0.01)
    latency._late_s = 0.0
    bench.poll(0.08)
    running = [dispatch.items[0].row for dispatch in bench.running]
    assert [1, 2] == running
    unsure, sure = bench._take(1), bench._take(2)
    bench.scheduler.complete(unsure.batch_id, 0.085, confidences=[UNSURE])
    bench.scheduler.complete(sure.batch_id, 0.085, confidences=[SURE])
    bench.poll(0.085)
    assert Outcome.SERVED is bench.record().outcome
    assert 0 == bench.scheduler.queued_rows
