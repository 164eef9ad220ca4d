"""Published rules that answer unsure rows again."""

from __future__ import annotations

import pytest

from router.family import Family
from router.latency import LatencyModel
from router.policies.cascadeserve import CascadeServe, Gear, best_gear, candidates
from router.policies.early_exit import EarlyExit
from router.request import Item
from router.words import Reason
from tests.queued import FAMILY, chosen, demand, lane, view

LATENCY = LatencyModel(FAMILY, 1.0)


def answered(at: int, confidence: float) -> Item:
    return Item(0, 0.1, 1, 1, 0, 0, 0, 0.0, 0.1, at, confidence)


@pytest.mark.parametrize(
    ("at", "confidence", "kept"), [(0, 0.79, True), (0, 0.8, False), (1, 0.5, True), (2, 0.1, False)]
)
def test_early_exit_keeps_unsure_answers_but_the_last(at: int, confidence: float, kept: bool) -> None:
    """The threshold is 0.8, and behind `large` there is no exit."""
    assert kept == EarlyExit().keeps(None, FAMILY, LATENCY, answered(at, confidence), 0.0)


def test_kept_rows_go_to_the_next_exit_in_the_order_of_deadlines() -> None:
    """A kept row with the earlier deadline runs before fresh ones, and after them with the later one."""
    for kept_s, expected in ((0.05, ("middle", 1)), (0.09, ("small", 2))):
        decision = EarlyExit().decide(None, view(lane([0.06, 0.07]), kept=(lane([kept_s], at=0),)), 0.0)[1]
        assert expected == chosen(decision)


def test_a_stage_that_goes_on_is_planned_for_what_it_adds() -> None:
    """`middle` takes 14 ms for four rows, 9 ms more than `small`: four fit 11 ms less the reply margin of 2 ms."""
    decision = EarlyExit().decide(None, view(kept=(lane([0.01101] * 6, at=0),)), 0.0)[1]
    assert ("middle", 4) == chosen(decision)
    assert decision.plan is not None
    assert decision.plan.reason is Reason.ESCALATED


def test_kept_rows_that_cannot_be_bettered_in_time_are_settled() -> None:
    """From `middle` only `large` is better: 10 ms and the margin. The row with 11 ms goes out, the other runs."""
    kept = lane([0.011, 0.013], at=1)
    decision = EarlyExit().decide(None, view(kept=(kept,)), 0.0)[1]
    assert ((kept, kept.items[0]),) == decision.settled
    decision = EarlyExit().decide(None, view(kept=(lane([0.013], at=1),)), 0.0)[1]
    assert ("large", 1) == chosen(decision)


def test_gears_are_all_variants_and_pairs_with_their_accuracy_on_the_evidence() -> None:
    """Going on from `small` below its median confidence to `large`: 10 right above, 8 of 10 below."""
    gears = {cascade.gear: cascade for cascade in candidates(FAMILY, (0, 1, 2))}
    assert gears[Gear(2)].accuracy == pytest.approx(0.9)
    halves = [c for c in gears.values() if c.gear[:2] == (0, 2) and c.share == 0.5]
    assert [pytest.approx(0.9)] == [cascade.accuracy for cascade in halves]


@pytest.mark.parametrize(("budget_s", "second"), [(0.01, -1), (0.0045, 2), (0.0012, -1)])
def test_the_gear_for_a_rate_is_the_best_that_fits(budget_s: float, second: int) -> None:
    """10 ms a row: `large` for all is as good as any. 4.5 ms: a cascade to `large`. 1.2 ms: `small` alone."""
    gear = best_gear(lane([0.2]), candidates(FAMILY, (0, 1, 2)), budget_s, 0.2)
    assert second == gear.second
    assert (gear.first == 2) == (budget_s == 0.01)


def test_without_evidence_gears_are_single_variants() -> None:
    """Measured quality stands in for the evidence."""
    bare = Family("f", FAMILY.variants, max_batch=8)
    assert [(Gear(0), 0.6), (Gear(1), 0.75), (Gear(2), 0.9)] == [c[:2] for c in candidates(bare, (0, 1, 2))]


def test_cascadeserve_keeps_below_the_threshold_of_the_gear_in_use() -> None:
    """At 170 rows/s the gear is a cascade; its unsure rows are kept, sure ones and those of other variants are not."""
    rule = CascadeServe()
    state, _ = rule.decide(None, view(lane([0.2], slo_s=0.2)), 0.0)
    state, decision = rule.decide(state, view(lane([0.29], slo_s=0.2), demand=demand(17, 0.2)), 0.1)
    name, _ = chosen(decision)
    assert name == "small"
    assert [True, False, False] == [
        rule.keeps(state, FAMILY, LATENCY, answered(at, sure), 0.1) for at, sure in ((0, 0.45), (0, 0.98), (1, 0.45))
    ]
    again = rule.decide(state, view(kept=(lane([0.29], slo_s=0.2, at=0),), demand=demand(17, 0.2)), 0.1)[1]
    assert again.plan is not None
    assert again.plan.variant > 0
