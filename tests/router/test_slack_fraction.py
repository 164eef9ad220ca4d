"""The short rule among several families: whose rows take part of the time that a better variant would need."""

from __future__ import annotations

import pytest

from router.policies.slack_fraction import SlackFraction
from router.words import Reason
from tests.queued import lane, sized, view


@pytest.mark.parametrize(
    ("strangers", "slots", "variant", "reason"),
    [
        (0, 1, "large", Reason.MOST_ACCURATE),
        (19, 1, "large", Reason.MOST_ACCURATE),
        (24, 1, "middle", Reason.FITS_SLACK),
        (27, 1, "small", Reason.FITS_SLACK),
        (30, 1, "small", Reason.OVERLOAD),
        (45, 1, "small", Reason.OVERLOAD),
        (45, 2, "large", Reason.MOST_ACCURATE),
    ],
)
def test_what_other_families_ask_for_is_not_spent(strangers: int, slots: int, variant: str, reason: Reason) -> None:
    """One row may take 30 ms on each slot, of which every row of the other family takes 1 ms at its cheapest."""
    queue = lane([0.1])
    lanes = (queue, sized([0.2] * strangers)) if strangers else (queue,)
    _, decision = SlackFraction().decide(None, view(*lanes, slots=slots), 0.0)
    assert decision.plan is not None
    assert (queue, variant) == (decision.plan.lane, queue.family.variants[decision.plan.variant].name)
    assert reason is decision.plan.reason


def test_rows_of_the_same_family_get_what_this_one_gets() -> None:
    """Rows of another size count with the variant that is looked at: six long rows of `exact` take 48 ms."""
    queue, longer = sized([0.1]), sized([0.2] * 6, size_class=1)
    _, decision = SlackFraction().decide(None, view(queue, longer), 0.0)
    assert decision.plan is not None
    assert "quick" == queue.family.variants[decision.plan.variant].name
    _, decision = SlackFraction().decide(None, view(queue), 0.0)
    assert decision.plan is not None
    assert "exact" == queue.family.variants[decision.plan.variant].name
