"""The scheduler: who is answered, by which variant and in which batch; exactly one record for every request."""

from __future__ import annotations

import pytest

from router.contract import Hints, Record, Slot
from router.family import Family, VariantProfile
from router.latency import table
from router.policies import policy_named
from router.request import NEVER
from router.scheduler import Scheduler
from router.words import Outcome, Reason
from tests.router.scheduling import FAMILY, request, run, scheduler


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


def test_a_fixed_variant_off_the_ladder_is_used() -> None:
    """Who configures a dominated variant gets it, but for requests whose floor it misses."""
    dominated = VariantProfile("dominated", 0.65, table((1, 8), (0.005, 0.04), (0.01, 0.08)))
    family = Family("f", (FAMILY.variants[0], dominated, FAMILY.variants[1]), FAMILY.sizes, 8)
    s = Scheduler([family], [Slot(0), Slot(1)], policy_named("fixed:dominated"))
    s.submit(request(1), 0.0)
    s.submit(request(2, min_quality=0.69), 0.0)
    assert {d.variant for d in s.poll(0.0).dispatches} == {"dominated", "small"}
