"""Quotas: no tenant gets more than its rate and burst, none waits longer than told, and what is kept is bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.contract import Slot
from router.family import Family, VariantProfile
from router.latency import table
from router.policies.fixed import Fixed
from router.quotas import MOST_OTHERS, Account, Quota, Quotas
from router.request import NEVER, Request
from router.scheduler import Scheduler
from router.words import Outcome, Reason

FAMILY = Family("f", (VariantProfile("only", 0.9, table((1, 8), (0.002, 0.008))),), max_batch=8)
ASKS = st.lists(st.tuples(st.floats(0.0, 3.0), st.integers(1, 8)), min_size=1, max_size=60)


def scheduler(quotas: Quotas) -> Scheduler:
    return Scheduler([FAMILY], [Slot(0)], Fixed("only"), margins={"f": 1.0}, quotas=quotas)


def asked(number: int, tenant: str = "a", rows: int = 1, slo_s: float = 1.0, now: float = 0.0) -> Request:
    return Request(number, "f", (0,) * rows, now, now + slo_s, NEVER, tenant=tenant)


@given(ASKS, st.floats(0.5, 20.0), st.floats(8.0, 30.0))
def test_rate_and_burst_bound_what_is_taken_in(asks: list[tuple[float, int]], rate: float, burst: float) -> None:
    """Between any two moments at most `burst` rows and `rate` rows for each second between them are taken in."""
    account, now = Account(Quota(rate, burst), 0.0), 0.0
    taken: list[tuple[float, int]] = []
    for pause_s, rows in asks:
        now += pause_s
        if account.wait_s(rows, now) == 0.0:
            account.take(rows, now)
            taken.append((now, rows))
    for first, (since_s, _) in enumerate(taken):
        total = 0
        for at_s, rows in taken[first:]:
            total += rows
            assert total <= (burst + rate * (at_s - since_s)) * (1 + 1e-6)


@given(ASKS, st.floats(0.01, 1000.0), st.floats(1.0, 30.0))
def test_who_waits_as_told_is_taken_in(asks: list[tuple[float, int]], rate: float, burst: float) -> None:
    """After the seconds that a refusal names the same request is taken in, and half of them are not enough."""
    account, now = Account(Quota(rate, burst), 0.0), 0.0
    for pause_s, rows in asks:
        now += pause_s
        wait_s = account.wait_s(rows, now)
        if wait_s:
            assert account.wait_s(rows, now + 0.5 * wait_s) > 0.0
            now += wait_s
        assert account.wait_s(rows, now) == 0.0
        account.take(rows, now)


def test_a_request_larger_than_the_burst_leaves_a_debt() -> None:
    """It is taken in when the bucket is full, and paid off at the rate before anything else is."""
    account = Account(Quota(rate=2.0, burst=4.0), 0.0)
    assert account.wait_s(10, 0.0) == 0.0
    account.take(10, 0.0)
    assert account.wait_s(1, 0.0) == pytest.approx(3.5)


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 5))
def test_concurrency_bounds_unfinished_requests(comes: list[bool], most: int) -> None:
    """There are never more of them than allowed, and one that is refused is told to wait."""
    account = Account(Quota(concurrency=most), 0.0)
    for come in comes:
        if come and account.wait_s(1, 0.0) == 0.0:
            account.take(1, 0.0)
        elif not come and account.unfinished:
            account.release(0.1)
        assert account.unfinished <= most
        assert (account.wait_s(1, 0.0) > 0.0) is (account.unfinished == most)


def test_what_is_refused_is_recorded_with_when_to_come_back() -> None:
    """Two rows at a time, one a second: the third is refused for a second, a pause later it is taken in."""
    driven = scheduler(Quotas({"a": Quota(rate=1.0, burst=2.0)}))
    for number in range(3):
        driven.submit(asked(number), 0.0)
    driven.submit(asked(3, "b"), 0.0)
    refused = driven.poll(0.0).records
    told = [(record.request_id, record.outcome, record.reason) for record in refused]
    assert told == [(2, Outcome.REJECTED_QUOTA, Reason.QUOTA)]
    assert refused[0].retry_after_s == pytest.approx(1.0)
    assert driven.refuse_over_quota(asked(4, now=0.5), 0.5) == pytest.approx(0.5)
    assert [record.request_id for record in driven.poll(0.5).records] == [4]
    assert driven.refuse_over_quota(asked(5, now=1.0), 1.0) == 0.0
    driven.submit(asked(5, now=1.0), 1.0)
    assert () == driven.poll(1.0).records


def test_every_outcome_gives_its_place_back() -> None:
    """Answered, cancelled, failed, expired or refused for another reason: the tenant may ask again."""
    driven = scheduler(Quotas(others=Quota(concurrency=1)))

    def free(now: float) -> bool:
        return driven.refuse_over_quota(asked(98, now=now), now) == 0.0

    driven.submit(asked(1), 0.0)
    (batch,) = driven.poll(0.0).dispatches
    assert driven.refuse_over_quota(asked(2), 0.0) > 0.0
    driven.complete(batch.batch_id, 0.002)
    assert free(0.002)
    driven.submit(asked(3, now=0.01), 0.01)
    (batch,) = driven.poll(0.01).dispatches
    driven.fail(batch.batch_id, Reason.EXECUTOR_ERROR, 0.02)
    assert free(0.02)
    driven.submit(asked(4, now=0.03)._replace(timeout_s=0.04), 0.03)
    driven.poll(0.03)
    driven.poll(0.05)
    assert free(0.05)
    driven.submit(asked(5, slo_s=0.0, now=0.06), 0.06)
    driven.poll(0.06)
    assert free(0.06)
    driven.submit(asked(6, now=0.07), 0.07)
    driven.cancel(6, 0.07)
    assert free(0.07)


def test_what_is_remembered_of_strangers_is_bounded() -> None:
    """Each has an account of its own until there are too many; then they share one, until old ones are blank again."""
    quotas = Quotas({"known": Quota(concurrency=1)}, Quota(rate=1.0, burst=1.0))
    for number in range(3 * MOST_OTHERS):
        account = quotas.account(f"stranger-{number}", 0.0)
        assert account is not None
        if account.wait_s(1, 0.0) == 0.0:
            account.take(1, 0.0)
            account.release(0.1)
    assert quotas.accounts == MOST_OTHERS + 1
    late = quotas.account("late", 0.5)
    assert late is not None
    assert late.wait_s(1, 0.5) == pytest.approx(0.5), "the shared account has been used"
    own = quotas.account("later", 2.0)
    assert own is not None
    assert (own is late, own.wait_s(1, 2.0)) == (False, 0.0)
    assert quotas.accounts <= MOST_OTHERS + 2


def test_quotas_may_change_while_they_are_used() -> None:
    """What was used up stays so, a smaller bucket holds less, and who ends no limit any more has no account."""
    driven = scheduler(Quotas({"a": Quota(rate=1.0, burst=10.0), "b": Quota(concurrency=1)}))
    driven.submit(asked(0, "a", rows=8), 0.0)
    driven.submit(asked(1, "b"), 0.0)
    driven.set_quotas({"a": Quota(rate=2.0, burst=4.0), "b": Quota()}, Quota(concurrency=1), 0.0)
    assert driven.refuse_over_quota(asked(2, "a"), 0.0) == 0.0
    driven.submit(asked(2, "a", rows=2), 0.0)
    assert driven.refuse_over_quota(asked(3, "a"), 0.0) == pytest.approx(0.5)
    driven.submit(asked(4, "b"), 0.0)
    driven.submit(asked(5, "c"), 0.0)
    assert driven.refuse_over_quota(asked(6, "c"), 0.0) > 0.0
    assert [record.request_id for record in driven.poll(0.0).records] == [3, 6]


@pytest.mark.parametrize("quota", [{"rate": 0.0}, {"rate": NEVER}, {"burst": 0.5}, {"concurrency": 0}])
def test_what_is_no_quota_is_refused(quota: dict[str, float]) -> None:
    """Zero rows a second, less than a row at once, or no request at a time could never answer anybody."""
    with pytest.raises(ValueError, match=next(iter(quota))):
        Quota(**quota)  # type: ignore[arg-type]  # what must fail


@pytest.mark.parametrize("quota", [Quota(0.001, 1.0), Quota(concurrency=1)])
def test_what_is_asked_again_is_counted_once(quota: Quota) -> None:
    """It is taken in though its tenant has nothing left, takes no rows, and is one of the unfinished until it ends."""
    quotas = Quotas({"a": quota})
    one = scheduler(quotas)
    account = quotas.account("a", 0.0)
    assert account is not None
    one.submit(asked(1), 0.0)
    left_s = account.wait_s(1, 0.0)
    one.submit(asked(2)._replace(charged=True), 0.0)
    assert 2 == account.unfinished
    assert left_s >= account.wait_s(1, 0.0) > 0.0
    one.submit(asked(3), 0.0)
    one.abandon_all(0.0)
    ended = {record.request_id: record for record in one.poll(0.0).records}
    assert (0, Outcome.REJECTED_QUOTA) == (account.unfinished, ended[3].outcome)
    assert [True, True, False] == [ended[number].charged for number in (1, 2, 3)]
