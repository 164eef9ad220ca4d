"""Kept answers are insurance: they go out in time, whatever becomes of the better ones."""

from __future__ import annotations

from typing import Any

import pytest

from router.request import NEVER, Request
from router.words import Escalation, Outcome, Reason, WhenLate
from tests.router.keeping import MARGIN_S, SURE, UNSURE, Bench, variants


def test_a_sure_answer_goes_out_at_once() -> None:
    """Nothing is kept, nothing runs again."""
    bench = Bench()
    bench.submit()
    bench.answer(0, SURE, 0.001)
    record = bench.record()
    assert ("small", 0.001, Escalation.CONFIDENT) == (record.variant, record.finished_s, record.escalation)
    assert not bench.running


def test_an_unsure_answer_is_replaced_by_a_better_one() -> None:
    """The record has the whole way: both variants, the first confidence, and why."""
    bench = Bench()
    bench.submit()
    bench.answer(0, UNSURE, 0.001)
    assert ([], ["large"]) == (bench.records, variants(bench))
    bench.answer(0, SURE, 0.010)
    record = bench.record()
    assert ("large", ("small", "large"), UNSURE) == (record.variant, record.path, record.confidence)
    assert (Outcome.SERVED, Escalation.ESCALATED, 1.0) == (record.outcome, record.escalation, record.quality)


def test_the_kept_answer_goes_out_before_the_deadline_though_the_better_batch_still_runs() -> None:
    """The alarm is at the deadline less the margin; what the batch gives afterwards is nobody's."""
    bench = Bench()
    bench.submit()
    bench.answer(0, UNSURE, 0.001)
    assert 0.1 - MARGIN_S == bench.wake_at
    bench.poll(0.0979)
    assert not bench.records
    bench.poll(bench.wake_at)
    record = bench.record()
    assert ("small", Outcome.SERVED, Escalation.NO_TIME) == (record.variant, record.outcome, record.escalation)
    bench.answer(0, SURE, 0.2)
    assert 1 == len(bench.records)
    assert (0, 0, NEVER) == (bench.scheduler.unfinished, bench.scheduler.queued_rows, bench.wake_at)


def test_the_way_back_to_the_caller_counts() -> None:
    """Answers are planned for 5 ms before the deadline, and a kept one goes out a margin before that."""
    bench = Bench(transit_s=0.005)
    bench.submit()
    bench.answer(0, UNSURE, 0.001)
    assert bench.wake_at == pytest.approx(0.1 - 0.005 - MARGIN_S)
    bench.poll(bench.wake_at)
    assert (Outcome.SERVED, "small") == (bench.record().outcome, bench.record().variant)


def test_the_kept_answer_goes_out_though_its_better_batch_never_starts() -> None:
    """The only slot is taken by somebody else until long after the deadline."""
    bench = Bench(slots=1)
    bench.submit()
    bench.scheduler.submit(Request(2, "scripted", (0,), 0.0, 1.0, NEVER), 0.0)
    bench.answer(0, UNSURE, 0.001)
    assert [2] == [dispatch.items[0].request_id for dispatch in bench.running]
    # 8 ms of `large` and the margin: from then on nothing better is to be had.
    assert bench.wake_at == pytest.approx(0.1 - MARGIN_S - 0.008)
    bench.poll(bench.wake_at)
    assert bench.record().finished_s == pytest.approx(0.1 - MARGIN_S - 0.008)
    assert Escalation.NO_TIME is bench.record().escalation


@pytest.mark.parametrize("staged", [False, True])
def test_the_kept_answer_goes_out_when_the_better_batch_fails(staged: bool) -> None:
    """A break of the better variant costs the caller nothing."""
    bench = Bench(staged=staged)
    bench.submit()
    bench.answer(0, UNSURE, 0.001)
    bench.fail(0, 0.005)
    record = bench.record()
    assert ("small", Outcome.SERVED, Escalation.FAILED) == (record.variant, record.outcome, record.escalation)
    assert 0 == bench.scheduler.unfinished


def test_a_failed_first_answer_is_no_answer() -> None:
    """There is nothing to fall back on where both variants break."""
    bench = Bench()
    bench.submit()
    bench.fail(0, 0.001)
    bench.fail(0, 0.002)
    assert (Outcome.FAILED, Reason.EXECUTOR_ERROR) == (bench.record().outcome, bench.record().reason)


def test_a_cancelled_request_takes_its_kept_answers_along() -> None:
    """Kept rows leave the queue, and the alarm rings for nobody."""
    bench = Bench(slots=1)
    bench.submit(rows=2)
    bench.answer(0, UNSURE, 0.001)
    bench.scheduler.cancel(1, 0.002)
    bench.poll(0.002)
    assert (Outcome.CANCELLED, 0) == (bench.record().outcome, bench.scheduler.queued_rows)
    bench.answer(1, UNSURE, 0.003)
    assert (1, NEVER) == (len(bench.records), bench.wake_at)


def test_a_request_cancelled_while_a_better_batch_runs_has_one_record() -> None:
    """The better answer finds nobody."""
    bench = Bench()
    bench.submit()
    bench.answer(0, UNSURE, 0.001)
    bench.scheduler.cancel(1, 0.002)
    bench.poll(0.002)
    bench.answer(0, SURE, 0.010)
    assert Outcome.CANCELLED is bench.record().outcome


def test_a_kept_answer_does_not_wait_for_the_hard_timeout() -> None:
    """At a timeout before the deadline it would be worthless: it goes out a margin earlier."""
    bench = Bench()
    bench.submit(timeout_s=0.05)
    bench.answer(0, UNSURE, 0.001)
    assert 0.05 - MARGIN_S == bench.wake_at
    bench.poll(bench.wake_at)
    assert (Outcome.SERVED, "small") == (bench.record().outcome, bench.record().variant)


def test_nothing_is_kept_when_the_caller_waits_no_longer() -> None:
    """An unsure answer within the margin of the deadline, or after it, goes out at once."""
    for now, outcome in ((0.099, Outcome.SERVED), (0.2, Outcome.SERVED_LATE)):
        bench = Bench()
        bench.submit()
        bench.answer(0, UNSURE, now)
        assert (outcome, now, Escalation.NONE) == (
            bench.record().outcome,
            bench.record().finished_s,
            bench.record().escalation,
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"pinned": "small"},
        {"deadline_s": NEVER},
        {"deadline_s": NEVER, "timeout_s": 0.1},
        {"deadline_s": 0.0005, "when_late": WhenLate.SERVE},
    ],
)
def test_some_answers_are_never_kept(changes: dict[str, Any]) -> None:
    """Who named the variant, has no deadline or has lost it, gets the first answer."""
    bench = Bench()
    bench.submit(**changes)
    (first,) = bench.running
    bench.answer(0, UNSURE, 0.001)
    assert first.variant == bench.record().variant
    assert not bench.running


def test_without_confidences_nothing_is_kept() -> None:
    """Who does not know how sure an answer is takes it."""
    bench = Bench()
    bench.submit()
    bench.scheduler.complete(bench.running.pop().batch_id, 0.001)
    bench.poll(0.001)
    assert ("small", 0.0) == (bench.record().variant, bench.record().confidence)


def test_a_stage_goes_on_from_the_kept_row() -> None:
    """Exits of one network: the second batch starts behind the stages that are done, and is planned for the rest."""
    bench = Bench(staged=True)
    bench.submit()
    bench.answer(0, UNSURE, 0.001)
    (second,) = bench.running
    assert (1, 2, 0, 0) == (second.from_stage, second.to_stage, second.items[0].at, second.start)
    assert second.predicted_s == pytest.approx(0.007)


def test_another_network_starts_anew_on_the_kept_row() -> None:
    """The second batch runs whole and is planned so, though its row has an answer."""
    bench = Bench()
    bench.submit()
    assert [-1] == [first.start for first in bench.running]
    bench.answer(0, UNSURE, 0.001)
    (second,) = bench.running
    assert (0, 1, 0, -1) == (second.from_stage, second.to_stage, second.items[0].at, second.start)
    assert second.predicted_s == pytest.approx(0.008)
