"""Stickiness: a caller keeps its variant for as long as it was promised, and no deadline is lost by it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.contract import Record, Slot
from router.policies import policy_named
from router.request import NEVER, Request
from router.scheduler import Scheduler
from router.stickiness import MOST_HOLDS, Stickiness
from router.words import Outcome, Reason
from tests.queued import FAMILY
from tests.router.served import serve

STICKY_S = 10.0


def asked(number: int, now: float, slo_s: float, tenant: str = "a", sticky_s: float = STICKY_S) -> Request:
    return Request(number, "f", (0,), now, now + slo_s, NEVER, tenant=tenant, sticky_s=sticky_s)


def answered(records: Sequence[Record]) -> list[tuple[str, bool]]:
    """The variant of each request in order of arrival, and whether it was kept."""
    return [(record.variant, record.reason is Reason.STICKY) for record in sorted(records)]


@given(st.lists(st.tuples(st.floats(0.0, 8.0), st.sampled_from("xyz"), st.sampled_from(["small", "large"]))))
def test_a_hold_is_the_first_answer_and_ends_when_it_said(answers: list[tuple[float, str, str]]) -> None:
    """Whatever is answered meanwhile, a caller keeps what it got first until that is `sticky_s` old."""
    holds, now = Stickiness(), 0.0
    first: dict[str, tuple[str, float]] = {}
    for pause_s, tenant, variant in answers:
        now += pause_s
        request = asked(0, now, 1.0, tenant)
        if tenant in first and now >= first[tenant][1] + STICKY_S:
            del first[tenant]
        assert holds.held(request, now) == (first[tenant][0] if tenant in first else None)
        holds.answered(request, variant, now)
        first.setdefault(tenant, (variant, now))


def test_holds_are_bounded_and_belong_to_who_wants_them() -> None:
    """The oldest goes first; nobody keeps anything who asked for none or named the variant."""
    holds = Stickiness()
    for number in range(2 * MOST_HOLDS):
        holds.answered(asked(0, 0.0, 1.0, f"t{number}"), "small", 0.0)
    assert len(holds) == MOST_HOLDS
    assert holds.held(asked(0, 0.0, 1.0, f"t{2 * MOST_HOLDS - 1}"), 1.0) == "small"
    assert holds.held(asked(0, 0.0, 1.0, "t0"), 1.0) is None
    assert holds.held(asked(0, 0.0, 1.0, f"t{2 * MOST_HOLDS - 1}", sticky_s=0.0), 1.0) is None
    assert holds.held(asked(0, 0.0, 1.0, f"t{2 * MOST_HOLDS - 1}")._replace(pinned="large"), 1.0) is None
    assert holds.held(asked(0, 0.0, 1.0, f"t{2 * MOST_HOLDS - 1}")._replace(session="s"), 1.0) is None


@pytest.mark.parametrize("policy", ["casc", "fluid", "slack-fraction", "most-accurate", "infaas", "ramsis"])
def test_who_was_answered_by_a_variant_keeps_it(policy: str) -> None:
    """A first request in a hurry gets `small`; so do patient ones for ten seconds, and then the best one again."""
    requests = [asked(0, 0.0, 0.005), asked(1, 1.0, 1.0), asked(2, 9.0, 1.0), asked(3, 11.0, 1.0), asked(4, 12.0, 1.0)]
    if policy == "most-accurate":
        # It has no choice but the best one for the first request, and sheds it.
        requests[0] = requests[0]._replace(deadline_s=1.0)
    first = answered(serve(FAMILY, policy, requests))
    begun = first[0][0]
    assert [first[1], first[2]] == [(begun, True)] * 2
    assert (first[3][1], first[4]) == (False, (first[3][0], True))
    others = [request._replace(sticky_s=0.0) for request in requests]
    assert not any(kept for _, kept in answered(serve(FAMILY, policy, others)))


def test_a_deadline_goes_before_a_hold() -> None:
    """Who keeps `large` and is in a hurry is answered by a quicker variant in time, and keeps `large` afterwards."""
    requests = [asked(0, 0.0, 1.0), asked(1, 1.0, 0.008), asked(2, 2.0, 1.0)]
    records = serve(FAMILY, "slack-fraction", requests)
    assert answered(records) == [("large", False), ("small", False), ("large", True)]
    assert all(record.slo_met for record in records)


def test_a_row_that_waits_in_vain_for_its_variant_gets_another() -> None:
    """The slot is taken for longer than planned: what is kept would be late, a quicker variant is not."""
    driven = Scheduler([FAMILY], [Slot(0)], policy_named("slack-fraction"), margins={"f": 1.0})
    driven.submit(asked(0, 0.0, 1.0), 0.0)
    (batch,) = driven.poll(0.0).dispatches
    driven.complete(batch.batch_id, 0.01)
    driven.submit(asked(1, 1.0, 1.0, "b"), 1.0)
    (blocking,) = driven.poll(1.0).dispatches
    driven.submit(asked(2, 1.0, 0.05), 1.0)
    wake_at = driven.poll(1.0).wake_at
    assert 1.03 < wake_at <= 1.04, "before `large`, 10 ms, would be late"
    assert () == driven.poll(wake_at).records
    driven.complete(blocking.batch_id, 1.043)
    (late,) = driven.poll(1.043).dispatches
    driven.complete(late.batch_id, 1.047)
    told = {record.request_id: record for record in driven.poll(1.047).records}
    assert (told[2].outcome, told[2].variant) == (Outcome.SERVED, "middle")
    assert told[2].reason is not Reason.STICKY


def test_in_a_crowd_nobody_keeps_a_variant_that_others_pay_for() -> None:
    """Forty rows at once of callers who keep `large`: as many are in time as if nobody kept anything."""
    first = [asked(number, 0.5 * number, 1.0, f"t{number}", 1000.0) for number in range(40)]
    crowd = [asked(100 + number, 30.0, 0.1, f"t{number}", 1000.0) for number in range(40)]
    free = [request._replace(sticky_s=0.0) for request in (*first, *crowd)]
    for policy in ("casc", "slack-fraction"):
        kept = serve(FAMILY, policy, [*first, *crowd])
        assert sum(r.slo_met for r in kept) >= sum(r.slo_met for r in serve(FAMILY, policy, free))
        assert any(record.reason is Reason.STICKY for record in kept)
