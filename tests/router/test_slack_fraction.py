"""The short rule among several families: whose rows take part of the time that a better variant would need."""

from __future__ import annotations

import pytest

from router.policies.slack_fraction import SlackFraction
from router.words import Reason
from tests.queued import chosen, lane, sized, view


@pytest.mark.parametrize(
    ("strangers", "due_s", "slots", "variant", "reason"),
    [
        (0, 0.3, 1, "large", Reason.MOST_ACCURATE),
        (19, 0.3, 1, "large", Reason.MOST_ACCURATE),
        (24, 0.3, 1, "middle", Reason.FITS_SLACK),
        (27, 0.3, 1, "small", Reason.FITS_SLACK),
        (30, 0.3, 1, "small", Reason.OVERLOAD),
        (45, 0.3, 1, "small", Reason.OVERLOAD),
        (45, 0.3, 2, "large", Reason.MOST_ACCURATE),
        (45, 60.0, 1, "large", Reason.MOST_ACCURATE),
    ],
)
def test_what_other_families_ask_for_is_not_spent(
    strangers: int, due_s: float, slots: int, variant: str, reason: Reason
) -> None:
    """One row beside others of another family, 1 ms each at their cheapest, which may take a tenth of their time."""
    queue = lane([0.1])
    lanes = (queue, sized([due_s] * strangers)) if strangers else (queue,)
    _, decision = SlackFraction().decide(None, view(*lanes, slots=slots), 0.0)
    assert decision.plan is not None
    assert (queue, variant) == (decision.plan.lane, queue.family.variants[decision.plan.variant].name)
    assert reason is decision.plan.reason


def test_who_is_less_urgent_leaves_all_the_time() -> None:
    """Rows that come after this one whatever happens do not make its answer a worse one."""
    queue, others = lane([0.1]), sized([0.2] * 45)
    _, decision = SlackFraction().decide(None, view(queue, others), 0.0)
    assert decision.plan is not None
    assert Reason.OVERLOAD is decision.plan.reason
    later = others._replace(
        key=others.key._replace(urgency=1), items=tuple(item._replace(urgency=1) for item in others.items)
    )
    _, decision = SlackFraction().decide(None, view(queue, later), 0.0)
    assert decision.plan is not None
    assert Reason.MOST_ACCURATE is decision.plan.reason


def test_time_that_others_leave_counts_at_every_deadline() -> None:
    """Rows that have time themselves, and too little with those that are due before them."""
    queue, soon, later = lane([0.1]), sized([0.2] * 10), sized([0.25] * 16)
    for lanes, variant in (((queue, soon), "large"), ((queue, later), "middle"), ((queue, soon, later), "small")):
        _, decision = SlackFraction().decide(None, view(*lanes), 0.0)
        assert decision.plan is not None
        assert variant == queue.family.variants[decision.plan.variant].name


def test_rows_of_the_same_family_get_what_this_one_gets() -> None:
    """Rows of another size count with the variant that is looked at: six long rows of `exact` take 48 ms."""
    queue, longer = sized([0.1]), sized([0.2] * 6, size_class=1)
    _, decision = SlackFraction().decide(None, view(queue, longer), 0.0)
    assert decision.plan is not None
    assert "quick" == queue.family.variants[decision.plan.variant].name
    _, decision = SlackFraction().decide(None, view(queue), 0.0)
    assert decision.plan is not None
    assert "exact" == queue.family.variants[decision.plan.variant].name


@pytest.mark.parametrize(
    ("left_s", "dearer", "rows"),
    [(0.0095, 1.2, 8), (0.0055, 1.2, 4), (0.0035, 1.2, 0), (0.0035, 1.4, 2), (0.0055, 1.0, 0)],
)
def test_heads_too_tight_for_the_usual_batch_get_a_smaller_one_that_is_hardly_dearer(
    left_s: float, dearer: float, rows: int
) -> None:
    """In batches of 8, 4 and 2, a row of `small` takes 1.13, 1.25 and 1.5 ms; where that is too dear the head goes."""
    queue = lane([left_s] + [0.02] * 30)
    _, decision = SlackFraction(dearer=dearer).decide(None, view(queue), 0.0)
    if rows:
        assert ("small", rows) == chosen(decision)
        assert not decision.late
    else:
        assert ((queue, queue.items[0]),) == decision.late
