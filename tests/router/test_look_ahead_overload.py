"""The look-ahead where there is far too little time: who is late, what batches there are, and for how long."""

from __future__ import annotations

from dataclasses import replace

import pytest

from router.demand import Demand
from router.family import Family
from router.latency import table
from router.policies.look_ahead import LookAhead
from router.request import NEVER, Request
from router.words import Reason
from tests.queued import FAMILY, chosen, demand, lane, view
from tests.router.looking_ahead import BOTH, TINY, decided, learnt_once, of


@BOTH
def test_rows_that_nobody_can_answer_in_time_are_late_before_anything_runs(rule: LookAhead) -> None:
    """`small` takes 2 ms; also while every slot is busy."""
    queue = lane([0.0015, 0.05])
    for given_view in (view(queue), view(queue)._replace(free_slots=(), busy_until_s=(0.01,))):
        decision = decided(rule, given_view)
        assert (((queue, queue.items[0]),), None) == (decision.late, decision.plan)


@BOTH
def test_a_head_too_tight_for_the_rest_is_given_up(rule: LookAhead) -> None:
    """One row has 3 ms, ten have 11 ms: alone it would cost the others more than it is worth."""
    queue = lane([0.003] + [0.0125] * 10)
    decision = decided(rule, view(queue))
    assert ((queue, queue.items[0]),) == decision.late


@BOTH
def test_too_many_rows_for_the_time_get_the_cheapest_variant(rule: LookAhead) -> None:
    """Two hundred rows in 100 ms are 225 ms of `small`: full batches of it, marked as overload."""
    queue = lane([0.001 * (10 + number / 4) for number in range(32)])._replace(depth=200, last_deadline_s=0.1)
    decision = decided(rule, view(queue))
    if decision.late:
        left = queue._replace(items=queue.items[len(decision.late) :], depth=200 - len(decision.late))
        decision = decided(rule, view(left))
    assert ("small", 8) == chosen(decision)
    assert decision.plan is not None
    assert Reason.OVERLOAD is decision.plan.reason


ALIKE = replace(
    FAMILY, variants=(replace(FAMILY.variants[0], latency=table((1, 8), (0.002, 0.016))), *FAMILY.variants[1:])
)
"""`FAMILY`, but rows of `small` take 2 ms each in whatever batch."""


def overload(short_slo_s: float) -> Demand:
    """500 rows at once, of which a fifth has a shorter SLO."""
    coming = demand(400)
    for number in range(100):
        coming.observe(Request(1000 + number, "f", (0,), 0.0, short_slo_s, NEVER), 0, 0.0)
    return coming


@BOTH
@pytest.mark.parametrize(
    ("family", "slo_s", "rows"),
    [
        (ALIKE, 0.1, 8),
        (ALIKE, 0.03, 2),
        (ALIKE, 0.02, 1),
        (ALIKE, 0.002, 1),
        (FAMILY, 0.03, 5),
        (FAMILY, 0.02, 5),
        (FAMILY, 0.002, 8),
    ],
)
def test_in_overload_batches_leave_time_for_short_slos(
    rule: LookAhead, family: Family, slo_s: float, rows: int
) -> None:
    """The slot is held for half of an SLO that a fifth of the rows to come have, less what goes before them.

    Where smaller batches make rows a tenth dearer, they are not made, nor are they for whoever asks for the impossible:
    that would halve what is answered.
    """
    queue = lane([0.001 * (20 + number / 4) for number in range(32)])._replace(depth=200, last_deadline_s=0.1)
    decision = decided(rule, view(of(family, queue), demand=overload(slo_s)))
    assert not decision.late
    assert ("small", rows) == chosen(decision)


@BOTH
def test_quick_families_do_not_suffer_from_an_overload_that_was(rule: LookAhead) -> None:
    """They are decided without a forecast, so the last one, of whatever age, does not count."""
    queue = lane([0.001 * (20 + number / 4) for number in range(32)])._replace(depth=200, last_deadline_s=0.1)
    state, _ = rule.decide(None, learnt_once(view(of(ALIKE, queue), demand=overload(0.01))), 0.0)
    quick = of(TINY, lane([0.00018] * 8, slo_s=0.0003))
    alone, after = (rule.decide(before, learnt_once(view(quick)), 0.0)[1] for before in (None, state))
    assert chosen(alone) == chosen(after)
    assert alone.plan is not None
    assert len(alone.plan.items) > 1
