"""Published rules that look at the queue alone, on queues whose right answer can be worked out by hand."""

from __future__ import annotations

import pytest

from router.policies import policy_named
from router.policies.slackfit import SlackFit
from tests.queued import chosen, lane, view

GREEDY = ("slackfit", "maxbatch", "maxacc", "infaas", "model-switching", "jellyfish", "ramsis", "cascadeserve")


@pytest.mark.parametrize(
    ("policy", "rows", "slack_s", "expected"),
    [
        # 20 buckets of 2.15 ms from 2 to 45 ms.
        ("slackfit", 1, 0.1, ("large", 1)),
        ("slackfit", 8, 0.1, ("large", 8)),
        ("slackfit", 8, 0.0101, ("small", 7)),  # 6.30-8.45 ms: seven of small in 8 ms, two of middle
        ("slackfit", 8, 0.030, ("middle", 8)),  # 27.80-29.95 ms is empty, below it eight of middle in 26 ms
        ("slackfit", 8, 0.0035, ("small", 2)),  # below the first end
        ("maxbatch", 8, 0.030, ("middle", 8)),
        ("maxbatch", 8, 0.0101, ("small", 8)),
        ("maxbatch", 3, 0.021, ("large", 3)),
        ("maxacc", 8, 0.021, ("large", 3)),
        ("maxacc", 8, 0.009, ("middle", 2)),
        ("maxacc", 8, 0.0045, ("small", 3)),
        ("infaas", 8, 0.046, ("large", 8)),  # nothing is known yet: the slowest within the SLO
        ("infaas", 8, 0.009, ("middle", 2)),  # which is too late for the head
        ("early-exit", 8, 0.046, ("small", 8)),
        ("early-exit", 8, 0.0045, ("small", 3)),
    ],
)
def test_slack_and_queue_name_variant_and_batch(
    policy: str, rows: int, slack_s: float, expected: tuple[str, int]
) -> None:
    """The choice of each rule for so many rows with so much slack, of an SLO of 100 ms."""
    assert expected == chosen(policy_named(policy).decide(None, view(lane([slack_s] * rows)), 0.0)[1])


def test_slackfit_with_one_bucket_is_its_largest_batch() -> None:
    """One bucket keeps the most accurate of the largest batches; below it the cheapest variant runs."""
    one = SlackFit(buckets=1)
    assert ("large", 8) == chosen(one.decide(None, view(lane([0.05] * 8)), 0.0)[1])
    assert ("small", 8) == chosen(one.decide(None, view(lane([0.04] * 8)), 0.0)[1])


@pytest.mark.parametrize("policy", [*GREEDY, "proteus", "early-exit"])
def test_pins_and_floors_hold_under_every_baseline(policy: str) -> None:
    """Who pinned `middle` gets it, and who may not have `small` never does."""
    for constraint in ({"pinned": 1, "lowest": 1}, {"lowest": 1}):
        for slack_s in (0.006, 0.08):
            decision = policy_named(policy).decide(None, view(lane([slack_s] * 8, **constraint)), 0.0)[1]
            assert decision.plan is not None
            assert decision.plan.variant == 1 or ("pinned" not in constraint and decision.plan.variant == 2)


@pytest.mark.parametrize("policy", [*GREEDY, "fastest", "slack-fraction", "early-exit"])
def test_early_drop_refuses_what_cannot_be_in_time_and_lazy_drop_what_is_not(policy: str) -> None:
    """With 1 ms left `small` comes too late: dropped early, run when lazy; at its deadline it is dropped by both."""
    for slack_s, early, late in ((0.001, True, False), (0.0, True, True)):
        for name, dropped in ((policy, early), (f"{policy}:lazy", late)):
            decision = policy_named(name).decide(None, view(lane([slack_s])), 0.0)[1]
            assert (dropped, not dropped) == (bool(decision.late), decision.plan is not None)


@pytest.mark.parametrize("policy", ["fastest", "slackfit", "maxbatch", "maxacc", "jellyfish", "early-exit"])
def test_in_overload_early_drop_gives_up_heads_too_tight_for_a_batch(policy: str) -> None:
    """A head with 3 ms would run in a batch of two before 30 rows that take 35 ms and have 20: it goes, they run."""
    queue = lane([0.003] + [0.02] * 30, slo_s=0.02)
    decision = policy_named(policy).decide(None, view(queue), 0.0)[1]
    assert [item.deadline_s for _, item in decision.late] == [0.003]
    lazy = policy_named(f"{policy}:lazy").decide(None, view(queue), 0.0)[1]
    assert lazy.late == ()


def test_a_tight_head_is_kept_where_all_can_be_answered() -> None:
    """The same head before six patient rows costs nobody anything."""
    decision = policy_named("fastest").decide(None, view(lane([0.003] + [0.02] * 6, slo_s=0.02)), 0.0)[1]
    assert ("small", 2) == chosen(decision)
