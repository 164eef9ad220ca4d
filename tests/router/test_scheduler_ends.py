"""How requests end that are not simply answered: refused, shed, failed, cancelled, timed out or at a shutdown."""

from __future__ import annotations

import pytest

from router.words import Outcome, Reason, WhenLate
from tests.router.scheduling import request, run, scheduler


def test_an_answer_after_the_deadline_is_late() -> None:
    """The SLO is soft: a late answer is an answer, and counted as late."""
    s = scheduler()
    s.submit(request(1), 0.0)
    (record,) = run(s, s.poll(0.0), 0.2).records
    assert (record.outcome, record.slo_met) == (Outcome.SERVED_LATE, False)


def test_a_hopeless_request_is_shed_at_once() -> None:
    """Even the cheapest variant takes 1 ms; half a millisecond of slack is refused without running."""
    s = scheduler()
    s.submit(request(1, slo_s=0.0005), 0.0)
    poll = s.poll(0.0)
    assert poll.dispatches == ()
    assert [record.reason for record in poll.records] == [Reason.DEADLINE_INFEASIBLE]


def test_a_waiting_request_is_shed_when_it_becomes_hopeless_though_every_slot_is_busy() -> None:
    """The wake-up names the moment, and at that moment the refusal comes out."""
    s = scheduler()
    s.submit(request(1, slo_s=1.0), 0.0)
    s.poll(0.0)
    s.submit(request(2, slo_s=0.005), 0.0)
    wake_at = s.poll(0.0).wake_at
    assert wake_at == pytest.approx(0.004)
    (record,) = s.poll(wake_at).records
    assert (record.request_id, record.outcome) == (2, Outcome.REJECTED_INFEASIBLE)


def test_who_wants_a_late_answer_gets_it_after_those_in_time() -> None:
    """`when_late=serve` moves a hopeless request behind all work that can still be in time."""
    s = scheduler()
    s.submit(request(1, slo_s=0.0005, when_late=WhenLate.SERVE), 0.0)
    s.submit(request(2, slo_s=0.02), 0.0)
    first = s.poll(0.0)
    assert [item.request_id for item in first.dispatches[0].items] == [2]
    second = run(s, first, 0.004)
    assert [item.request_id for item in second.dispatches[0].items] == [1]
    (record,) = run(s, second, 0.005).records
    assert (record.outcome, record.variant, record.reason) == (Outcome.SERVED_LATE, "small", Reason.LATE)


def test_a_floor_above_every_variant_is_refused() -> None:
    """Nothing loaded reaches 0.95."""
    s = scheduler()
    s.submit(request(1, min_quality=0.95), 0.0)
    (record,) = s.poll(0.0).records
    assert (record.outcome, record.reason) == (Outcome.REJECTED_INFEASIBLE, Reason.NOT_LOADED)


def test_a_full_backlog_refuses_and_keeps_what_it_has() -> None:
    """The bound counts rows; the refused request does not disturb the queued one."""
    s = scheduler(backlog_rows=1)
    s.submit(request(1), 0.0)
    s.submit(request(2), 0.0)
    poll = s.poll(0.0)
    assert [(r.request_id, r.outcome) for r in poll.records] == [(2, Outcome.REJECTED_FULL)]
    assert [item.request_id for item in poll.dispatches[0].items] == [1]


def test_a_failed_batch_fails_its_requests_once_and_frees_the_slot() -> None:
    """Every request of the batch that wants its variant and no other has one record, and the next request runs."""
    s = scheduler()
    s.submit(request(1, pinned="small"), 0.0)
    s.submit(request(2, pinned="small"), 0.0)
    poll = s.poll(0.0)
    s.fail(poll.dispatches[0].batch_id, Reason.EXECUTOR_ERROR, 0.01)
    s.submit(request(3), 0.01)
    after = s.poll(0.01)
    assert [(r.request_id, r.outcome) for r in after.records] == [(1, Outcome.FAILED), (2, Outcome.FAILED)]
    assert len(after.dispatches) == 1


def test_a_cancelled_request_leaves_the_queue_and_a_second_cancel_is_nothing() -> None:
    """Cancelling may cross the answer, so an unknown id is ignored."""
    s = scheduler()
    s.submit(request(1), 0.0)
    s.cancel(1, 0.0)
    s.cancel(1, 0.0)
    poll = s.poll(0.0)
    assert [(r.request_id, r.outcome) for r in poll.records] == [(1, Outcome.CANCELLED)]
    assert (poll.dispatches, s.queued_rows) == ((), 0)


def test_a_request_cancelled_while_it_runs_has_one_record() -> None:
    """The batch's end does not answer it a second time."""
    s = scheduler()
    s.submit(request(1), 0.0)
    poll = s.poll(0.0)
    s.cancel(1, 0.001)
    assert [r.outcome for r in s.poll(0.001).records] == [Outcome.CANCELLED]
    assert run(s, poll, 0.01).records == ()


def test_the_hard_timeout_ends_a_running_request() -> None:
    """At the timeout the answer is worthless: the request expires though its batch still runs."""
    s = scheduler()
    s.submit(request(1, timeout_s=0.005), 0.0)
    assert s.poll(0.0).wake_at == 0.005
    assert [r.outcome for r in s.poll(0.005).records] == [Outcome.EXPIRED]


def test_an_id_in_use_is_refused_loudly() -> None:
    """Two requests of one id could not be told apart."""
    s = scheduler()
    s.submit(request(1), 0.0)
    with pytest.raises(ValueError, match="in use"):
        s.submit(request(1), 0.0)


def test_shutdown_gives_every_request_its_outcome() -> None:
    """Waiting and running requests alike fail with the reason `shutdown`."""
    s = scheduler()
    s.submit(request(1), 0.0)
    s.poll(0.0)
    s.submit(request(2), 0.0)
    s.abandon_all(0.0)
    assert {(r.request_id, r.reason) for r in s.poll(0.0).records} == {(1, Reason.SHUTDOWN), (2, Reason.SHUTDOWN)}


def test_shedding_ends_when_the_machine_is_quick_again() -> None:
    """After ten seconds at twelve times the profile everything is refused; a while later it is answered again."""
    s = scheduler()
    outcomes: list[tuple[float, Outcome]] = []
    now, number = 0.0, 0
    while now < 25.0:
        s.submit(request(number, arrival_s=now, deadline_s=now + 0.005), now)
        number += 1
        poll = s.poll(now)
        for dispatch in poll.dispatches:
            now += 0.012 if now < 10.0 else 0.001
            s.complete(dispatch.batch_id, now)
        outcomes += [(now, record.outcome) for record in (*poll.records, *s.poll(now).records)]
        now += 0.02
    refused = [at for at, outcome in outcomes if outcome is Outcome.REJECTED_INFEASIBLE]
    assert refused, "the spell was believed"
    assert max(refused) < 20.0
    assert all(outcome is Outcome.SERVED for at, outcome in outcomes if at > 20.0)


def test_a_request_that_cannot_be_whole_in_time_is_refused_before_it_costs_anything() -> None:
    """A hundred rows of 1 ms in 80 ms on one slot: no row is run in vain."""
    s = scheduler()
    s.submit(request(1, slo_s=0.08, row_classes=(0,) * 100), 0.0)
    poll = s.poll(0.0)
    assert (poll.dispatches, [record.outcome for record in poll.records]) == ((), [Outcome.REJECTED_INFEASIBLE])


def test_an_urgent_head_does_not_hide_hopeless_rows_behind_it() -> None:
    """The wake-up is that of the first row to become hopeless, whatever its urgency."""
    s = scheduler()
    s.submit(request(1, slo_s=10.0), 0.0)
    s.poll(0.0)
    s.submit(request(2, slo_s=10.0, urgency=1), 0.0)
    s.submit(request(3, slo_s=0.05, urgency=5), 0.0)
    assert s.poll(0.0).wake_at == pytest.approx(0.049)
