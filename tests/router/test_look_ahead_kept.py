"""The look-ahead and rows that have an answer: when they go on to a better one, wait for that, or go out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.policies.look_ahead import RETRY_S
from router.words import Reason
from tests.queued import demand, lane, view
from tests.router.looking_ahead import CASCADES, TINY, decided, latest_start_s, of


@given(st.lists(st.integers(3, 80), max_size=48), st.lists(st.integers(5, 80), min_size=1, max_size=12))
def test_kept_rows_never_make_a_fresh_one_late(fresh: list[int], kept: list[int]) -> None:
    """A batch of kept rows runs only if all fresh ones can start after it, and its answers are in time."""
    queue = [lane([0.001 * slack for slack in fresh])] if fresh else []
    given_view = view(*queue, kept=(lane([0.001 * slack for slack in kept], at=0),))
    plan = decided(CASCADES, given_view).plan
    if plan is not None and plan.lane.key.at >= 0:
        seconds = plan.lane.latency.planned_s(plan.variant, len(plan.items), 0, 0 if plan.variant == 1 else -1)
        assert seconds <= latest_start_s(list(queue[0].items) if queue else [], 1)
        assert seconds <= plan.items[0].deadline_s - given_view.reply_margin_s


def test_unsure_rows_go_on_when_nothing_else_waits() -> None:
    """All of them in one batch, and marked as such."""
    decision = decided(CASCADES, view(kept=(lane([0.09] * 3, at=0),)))
    assert decision.plan is not None
    assert (2, 3, Reason.ESCALATED) == (decision.plan.variant, len(decision.plan.items), decision.plan.reason)


def test_unsure_rows_wait_while_the_queue_is_full() -> None:
    """Fresh rows are worth more; the kept ones stay where they are."""
    decision = decided(CASCADES, view(lane([0.05] * 20), kept=(lane([0.05] * 3, at=0),)))
    assert decision.plan is not None
    assert (-1, ()) == (decision.plan.lane.key.at, decision.settled)


def test_kept_rows_not_worth_their_time_now_are_looked_at_again_soon() -> None:
    """At a price that no gain outweighs nothing runs, and the wake-up comes before their end."""
    sure = lane([0.09], at=0)
    sure = sure._replace(items=tuple(item._replace(confidence=0.97) for item in sure.items))
    decision = decided(CASCADES, view(kept=(sure,), demand=demand(50)))
    assert (None, (), RETRY_S) == (decision.plan, decision.settled, decision.wake_at)


def test_kept_rows_that_cannot_be_bettered_in_time_go_out() -> None:
    """The next exit takes 3 ms and the reply margin is 2 ms."""
    for slack_s, gone in ((0.0049, True), (0.0051, False)):
        kept = lane([slack_s, 0.09], at=0)
        expected = ((kept, kept.items[0]),) if gone else ()
        assert expected == decided(CASCADES, view(kept=(kept,))).settled


def test_the_last_variants_rows_have_nothing_to_wait_for() -> None:
    """Whoever kept them, they go out."""
    kept = lane([0.09], at=2)
    assert ((kept, kept.items[0]),) == decided(CASCADES, view(kept=(kept,))).settled


def test_kept_rows_of_others_are_not_forgotten_beside_quick_models() -> None:
    """The short rule knows no kept rows; the wake-up does."""
    kept = lane([0.020], at=0)
    decision = decided(CASCADES, view(of(TINY, lane([0.5])), kept=(kept,)))
    assert decision.wake_at == pytest.approx(0.020 - 0.003 - 0.002)
