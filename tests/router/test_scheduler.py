"""The scheduler: exactly one record for every request, and what each outcome looks like."""

from __future__ import annotations

import pytest

from router.contract import Hints, Poll, Record, Slot
from router.family import Family, VariantProfile
from router.latency import table
from router.limits import Limits
from router.policies import policy_named
from router.policies.slack_fraction import SlackFraction
from router.request import NEVER, Request
from router.scheduler import Scheduler
from router.view import Policy
from router.words import Outcome, Reason, WhenLate

FAMILY = Family(
    "f",
    (
        VariantProfile("small", 0.7, table((1, 8), (0.001, 0.008), (0.002, 0.016))),
        VariantProfile("large", 0.9, table((1, 8), (0.010, 0.080), (0.020, 0.160))),
    ),
    sizes=(16, 32),
    max_batch=8,
)


def scheduler(policy: Policy | None = None, slots: int = 1, backlog_rows: int = 100) -> Scheduler:
    return Scheduler(
        [FAMILY], [Slot(i) for i in range(slots)], policy or SlackFraction(), Limits(backlog_rows), {"f": 1.0}
    )


def request(number: int, slo_s: float = 0.1, **changes: object) -> Request:
    base = Request(number, "f", (0,), 0.0, slo_s, NEVER)
    return base._replace(**changes)  # type: ignore[arg-type]  # field types are the caller's business in a test


def run(driven: Scheduler, poll: Poll, now: float) -> Poll:
    """Complete everything that was dispatched, at `now`."""
    for dispatch in poll.dispatches:
        driven.complete(dispatch.batch_id, now)
    return driven.poll(now)


def test_a_lone_request_with_a_loose_slo_gets_the_best_variant() -> None:
    """Slack of 100 ms leaves room for the 10 ms variant."""
    s = scheduler()
    s.submit(request(1), 0.0)
    (record,) = run(s, s.poll(0.0), 0.01).records
    assert (record.variant, record.outcome, record.reason) == ("large", Outcome.SERVED, Reason.MOST_ACCURATE)
    assert (record.slo_met, record.quality, record.queue_s, record.compute_s) == (True, 0.9, 0.0, 0.01)


def test_a_tight_slo_gets_the_variant_that_fits() -> None:
    """Slack of 12 ms is in reach of the large variant but not of its reserve."""
    s = scheduler()
    s.submit(request(1, slo_s=0.012), 0.0)
    (record,) = run(s, s.poll(0.0), 0.001).records
    assert (record.variant, record.reason) == ("small", Reason.FITS_SLACK)


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


def test_work_without_a_deadline_waits_for_spare_capacity() -> None:
    """Class `batch` runs only when nothing with a deadline waits, however early it came."""
    s = scheduler()
    s.submit(request(1, deadline_s=NEVER, service_class="batch"), 0.0)
    s.submit(request(2), 0.0)
    first = s.poll(0.0)
    assert [item.request_id for item in first.dispatches[0].items] == [2]
    (record,) = run(s, run(s, first, 0.01), 0.02).records
    assert (record.request_id, record.outcome, record.reason) == (1, Outcome.SERVED, Reason.SPARE_CAPACITY)


@pytest.mark.parametrize("policy", ["slack-fraction", "fastest", "most-accurate", "fixed:small"])
def test_a_pinned_variant_answers_under_every_policy(policy: str) -> None:
    """Who names a variant gets it, or a refusal, never another one."""
    s = scheduler(policy_named(policy))
    s.submit(request(1, pinned="large"), 0.0)
    (record,) = run(s, s.poll(0.0), 0.01).records
    assert (record.variant, record.reason) == ("large", Reason.PINNED)


@pytest.mark.parametrize("policy", ["slack-fraction", "fastest", "most-accurate", "fixed:small"])
def test_a_floor_on_quality_is_kept_under_every_policy(policy: str) -> None:
    """A request that wants 0.8 is not answered by the variant of 0.7, also in a hurry."""
    s = scheduler(policy_named(policy))
    s.submit(request(1, slo_s=0.012, min_quality=0.8), 0.0)
    (record,) = run(s, s.poll(0.0), 0.01).records
    assert (record.variant, record.quality) == ("large", 0.9)


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


def test_rows_of_different_size_classes_never_share_a_batch() -> None:
    """A short row padded to a long one would cost as much as the long one."""
    s = scheduler(slots=4)
    for number in range(4):
        s.submit(request(number, row_classes=(number % 2,)), 0.0)
    batches = [{item.size_class for item in dispatch.items} for dispatch in s.poll(0.0).dispatches]
    assert all(len(classes) == 1 for classes in batches)
    assert {min(classes) for classes in batches} == {0, 1}


def test_a_request_larger_than_a_batch_is_split_and_ends_with_its_last_row() -> None:
    """Twenty rows in batches of at most eight give one record with a variant for each row."""
    s = scheduler()
    s.submit(request(1, slo_s=10.0, row_classes=(0,) * 20), 0.0)
    now, poll, batches = 0.0, s.poll(0.0), 0
    while not poll.records:
        batches += len(poll.dispatches)
        now += 0.08
        poll = run(s, poll, now)
    (record,) = poll.records
    assert (record.rows, len(record.row_variants), record.outcome) == (20, 20, Outcome.SERVED)
    assert batches == 3


def test_rows_answered_by_different_variants_are_called_mixed() -> None:
    """The record names each row's variant and the mean of their qualities."""
    s = scheduler(slots=1)
    s.submit(request(1, slo_s=0.3, row_classes=(0,) * 9), 0.0)
    poll, now = s.poll(0.0), 0.0
    seen = []
    while not poll.records:
        seen += [dispatch.variant for dispatch in poll.dispatches]
        now += 0.29
        poll = run(s, poll, now)
    (record,) = poll.records
    assert set(seen) == {"small", "large"}
    assert (record.variant, set(record.row_variants)) == ("mixed", {"small", "large"})
    assert 0.7 < record.quality < 0.9


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


def test_urgent_requests_go_before_earlier_deadlines() -> None:
    """A lower urgency number wins over the deadline."""
    s = scheduler(policy_named("most-accurate"))
    s.submit(request(1, slo_s=0.011, urgency=5), 0.0)
    s.submit(request(2, slo_s=0.012, urgency=1), 0.0)
    (dispatch,) = s.poll(0.0).dispatches
    assert [item.request_id for item in dispatch.items] == [2]


def test_fresh_hints_raise_the_floor_and_old_ones_are_forgotten() -> None:
    """A floor advised for the family applies until the advice is too old."""
    s = scheduler(policy_named("fastest"), slots=2)
    s.set_hints(Hints(issued_s=0.0, max_age_s=1.0, floors={"f": 0.8}))
    chosen = []
    for number, now in enumerate((0.5, 5.0)):
        s.submit(request(number, arrival_s=now, deadline_s=now + 0.1), now)
        chosen += [dispatch.variant for dispatch in s.poll(now).dispatches]
    assert chosen == ["large", "small"]


@pytest.mark.parametrize(
    ("caution", "now", "variant"),
    [({}, 0.0, "large"), ({"f": 2.0}, 0.0, "small"), ({"other": 2.0}, 0.0, "large"), ({"f": 2.0}, 61.0, "large")],
    ids=["none", "for this family", "for another one", "too old"],
)
def test_advised_caution_makes_plans_longer_while_it_is_fresh(
    caution: dict[str, float], now: float, variant: str
) -> None:
    """With twice the margin the large variant's 10 ms no longer fit a budget of 15 ms."""
    s = scheduler()
    s.set_hints(Hints(issued_s=0.0, caution=caution))
    s.submit(request(1, arrival_s=now, deadline_s=now + 0.05), now)
    assert [d.variant for d in s.poll(now).dispatches] == [variant]


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


def test_learnt_slowness_moves_requests_to_a_quicker_variant() -> None:
    """A machine five times slower than its profile stops choosing what no longer fits."""
    s = scheduler()
    now = 0.0
    for number in range(200):
        s.submit(request(number, arrival_s=now, deadline_s=now + 0.1), now)
        for dispatch in s.poll(now).dispatches:
            now += 0.05 if dispatch.variant == "large" else 0.005
            s.complete(dispatch.batch_id, now)
        s.poll(now)
    s.submit(request(999, arrival_s=now, deadline_s=now + 0.1), now)
    assert [d.variant for d in s.poll(now).dispatches] == ["small"]


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


def test_a_head_with_a_high_floor_costs_patient_rows_nothing() -> None:
    """In overload the floored row gets its dear variant alone; the others still get the cheap one, in time."""
    s = scheduler(slots=2)
    s.submit(request(0, slo_s=0.012, min_quality=0.8), 0.0)
    for number in range(1, 9):
        s.submit(request(number, slo_s=0.0125), 0.0)
    poll = s.poll(0.0)
    ended: list[Record] = []
    (large,) = [dispatch for dispatch in poll.dispatches if dispatch.variant == "large"]
    small = [dispatch for dispatch in poll.dispatches if dispatch is not large]
    now = 0.0
    while small:
        now += 0.001 * len(small[0].items)
        s.complete(small[0].batch_id, now)
        poll = s.poll(now)
        ended += poll.records
        small = list(poll.dispatches)
    s.complete(large.batch_id, 0.01)
    ended += s.poll(0.01).records
    assert {record.variant for record in ended if record.request_id} == {"small"}
    assert [record.outcome for record in ended] == [Outcome.SERVED] * 9


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


def test_a_fixed_variant_off_the_ladder_is_used() -> None:
    """Who configures a dominated variant gets it, but for requests whose floor it misses."""
    dominated = VariantProfile("dominated", 0.65, table((1, 8), (0.005, 0.04), (0.01, 0.08)))
    family = Family("f", (FAMILY.variants[0], dominated, FAMILY.variants[1]), FAMILY.sizes, 8)
    s = Scheduler([family], [Slot(0), Slot(1)], policy_named("fixed:dominated"))
    s.submit(request(1), 0.0)
    s.submit(request(2, min_quality=0.69), 0.0)
    assert {d.variant for d in s.poll(0.0).dispatches} == {"dominated", "small"}
