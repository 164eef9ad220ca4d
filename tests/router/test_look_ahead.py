"""The look-ahead: what runs next when there is time, and when there is little."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router.backlog import LaneKey
from router.family import Family
from router.latency import LatencyModel, table
from router.memory import Memory
from router.outlook import MOST_POINTS, kind_of
from router.policies.look_ahead import MOST_LANES, LookAhead
from router.policies.slack_fraction import SlackFraction
from router.request import NEVER, Item, Request
from router.view import Lane, View
from router.words import Reason
from tests.queued import FAMILY, chosen, demand, lane, view
from tests.router.looking_ahead import BOTH, CASCADES, FLUID, TINY, decided, latest_start_s, learnt_once, of

SPARE_S = 0.2 * 0.1
"""What the rule keeps clear of the rows' SLO of 100 ms, where some choice does."""


def price(rule: LookAhead, given_view: View) -> float:
    """What a second is worth at the look that the decision took."""
    memory, _ = rule.decide(None, learnt_once(given_view), 0.0)
    assert isinstance(memory, Memory)
    return memory.price


def test_alone_a_row_gets_the_best_variant() -> None:
    """100 ms for one row is time for everything."""
    decision = decided(FLUID, view(lane([0.1])))
    assert ("large", 1) == chosen(decision)
    assert decision.plan is not None
    assert Reason.MOST_ACCURATE is decision.plan.reason


def test_alone_a_row_is_expected_to_end_as_good_as_the_best_with_cascades() -> None:
    """`small` runs first: unsure rows go on, and on the evidence that is as good, for less of the time."""
    some = lane([0.1])
    assert ("small", 1) == chosen(decided(CASCADES, view(some)))
    offers = Memory(follow=True).table_of(some, 0.0).offers(kind_of(some), 0)
    assert offers[0].quality == pytest.approx(max(offer.quality for offer in offers))
    assert offers[0].later_s < 0.010 - 0.002


@BOTH
@pytest.mark.parametrize("slack_s", [0.0025, 0.0045])
def test_a_tight_row_gets_the_cheapest_variant(rule: LookAhead, slack_s: float) -> None:
    """`middle` takes 5 ms."""
    assert ("small", 1) == chosen(decided(rule, view(lane([slack_s]))))


@pytest.mark.parametrize(("slack_s", "name"), [(0.0047, "small"), (0.0095, "middle"), (0.02, "large")])
def test_a_row_gets_the_best_variant_that_fits(slack_s: float, name: str) -> None:
    """Alone, late in its SLO: they take 2, 5 and 10 ms."""
    assert (name, 1) == chosen(decided(FLUID, view(lane([slack_s]))))


@BOTH
def test_a_full_queue_gets_large_batches_of_the_cheapest_variant(rule: LookAhead) -> None:
    """Forty rows have 60 ms, of which `small` takes 45."""
    decision = decided(rule, view(lane([0.06] * 40)))
    assert ("small", 8) == chosen(decision)
    assert () == decision.late


@BOTH
def test_rows_to_come_are_planned_for(rule: LookAhead) -> None:
    """A lone row gets less when hundreds are expected."""
    assert ("small", 1) == chosen(decided(rule, view(lane([0.1]), demand=demand(50))))


@BOTH
def test_four_slots_give_rows_better_variants_than_one(rule: LookAhead) -> None:
    """Twelve rows in 50 ms: alone a slot plans for `small`, beside others for more."""
    qualities = []
    for slots in (1, 4):
        plan = decided(rule, view(lane([0.05] * 12), slots=slots)).plan
        assert plan is not None
        qualities.append(FAMILY.variants[plan.variant].quality)
    assert qualities[0] < qualities[1]


@BOTH
def test_a_request_with_a_floor_gets_at_least_that(rule: LookAhead) -> None:
    """Also in a full queue: `middle` is the cheapest allowed."""
    for rows in (1, 8, 40):
        plan = decided(rule, view(lane([0.1] * rows, lowest=1))).plan
        assert plan is None or plan.variant >= 1
    assert "middle" == chosen(decided(rule, view(lane([0.1] * 8, lowest=1), demand=demand(50))))[0]


@BOTH
@pytest.mark.parametrize("pinned", [0, 1, 2])
def test_a_pinned_variant_answers_and_says_so(rule: LookAhead, pinned: int) -> None:
    """Whatever the queue behind it."""
    some = lane([0.05], pinned=pinned, lowest=pinned)
    for given_view in (view(some), view(some, lane([0.09] * 8)), view(some, demand=demand(50))):
        plan = decided(rule, given_view).plan
        assert plan is not None
        assert (pinned, Reason.PINNED) == (plan.variant, plan.reason)


@given(
    st.lists(st.integers(3, 80), min_size=1, max_size=3 * MOST_POINTS),
    st.booleans(),
    st.integers(1, 2),
    st.integers(0, 40),
)
@example([9] + [31] + [80] * 30, True, 1, 0)
def test_a_batch_leaves_everybody_behind_it_feasible_if_any_does(
    slacks: list[int], cascades: bool, slots: int, expected: int
) -> None:
    """Where some batch of the first rows leaves time to spare for all others, so does the one that runs.

    Of that time, long queues may lose the work of a group of rows but one: they are looked at in groups.
    """
    queue = lane([0.001 * slack for slack in slacks])
    decision = decided(LookAhead(cascades=cascades), view(queue, slots=slots, demand=demand(expected)))
    rows = list(queue.items)
    feasible = [
        size
        for size in range(1, min(8, len(rows)) + 1)
        for seconds in [queue.latency.planned_s(0, size, 0)]
        if seconds + SPARE_S <= rows[0].deadline_s and seconds + SPARE_S <= latest_start_s(rows[size:], slots)
    ]
    if feasible:
        assert () == decision.late
        assert decision.plan is not None
        size = len(decision.plan.items)
        seconds = queue.latency.planned_s(decision.plan.variant, size, 0)
        assert seconds + SPARE_S <= rows[0].deadline_s + 1e-9
        unseen_s = (-(-len(rows) // MOST_POINTS) - 1) * 0.009 / 8 / slots
        assert unseen_s < SPARE_S
        assert seconds + SPARE_S <= latest_start_s(rows[size:], slots) + unseen_s + 1e-9


@BOTH
@pytest.mark.parametrize("slacks_s", [[0.019], [0.03] * 12, [0.003] + [0.0125] * 10, [0.05] * 40, [0.02, 0.1, 0.1]])
def test_where_nothing_leaves_time_to_spare_the_short_rule_decides(rule: LookAhead, slacks_s: list[float]) -> None:
    """A fifth of 100 ms, before the deadline of every row: even full batches of `small` leave less."""
    queue = lane(slacks_s)
    assert SlackFraction().decide(None, view(queue), 0.0)[1] == decided(rule, view(queue))


PATIENT = lane([0.2], slo_s=0.2)


@pytest.mark.parametrize(
    ("free", "busy_until_s", "most_s"),
    [((0,), (), 0.0079), ((0,), (0.05,), 0.0079), ((0,), (0.005,), 0.010), ((0, 1), (), 0.010)],
)
def test_the_last_free_slot_is_not_taken_for_longer_than_those_to_come_can_wait(
    free: tuple[int, ...], busy_until_s: tuple[float, ...], most_s: float
) -> None:
    """They have 12 ms, a fifth of which is left, and take a millisecond: `large` runs only where another slot frees."""
    coming = demand(2, slo_s=0.012)
    machine = view(demand=coming)._replace(free_slots=free, busy_until_s=busy_until_s)
    plan = decided(FLUID, machine._replace(lanes=(PATIENT,))).plan
    assert plan is not None
    assert ("middle" if most_s < 0.010 else "large") == FAMILY.variants[plan.variant].name
    better = decided(CASCADES, machine._replace(kept=(lane([0.2] * 3, at=1),))).plan
    assert (most_s < 0.010) == (better is None), "nothing but `large` is better than `middle`, alone 10 ms"
    nobody = machine._replace(demand=demand(0), lanes=(PATIENT,))
    assert ("large", 1) == chosen(decided(FLUID, nobody))


def slower(times: float) -> Family:
    """A family that takes so many times as long."""
    variants = tuple(
        replace(variant, latency=table((1, 8), tuple(times * seconds for seconds in variant.latency.median_s[0])))
        for variant in FAMILY.variants
    )
    return replace(FAMILY, name="slow", variants=variants)


@pytest.mark.parametrize(("times", "name"), [(10.0, "middle"), (40.0, "small")])
def test_those_to_come_are_doomed_by_what_their_own_rows_take(times: float, name: str) -> None:
    """They have 80 ms, keep a fifth clear and take one: they can wait for 50, however long rows of another family take.

    Of those `middle` takes 50 ms, `large` 100. Where even `small` takes 80, that runs and nothing longer.
    """
    counted = demand(2, slo_s=0.08)
    counted.observe(Request(9, "slow", (0,), -9.0, -7.0, NEVER), 0, -9.0)
    patient = of(slower(times), lane([2.0], slo_s=2.0))
    state = FLUID.prepare([(FAMILY, LatencyModel(FAMILY, 1.0)), (patient.family, patient.latency)])
    plan = FLUID.decide(state, view(patient, demand=counted), 0.0)[1].plan
    assert plan is not None
    assert name == FAMILY.variants[plan.variant].name


def test_the_most_urgent_lanes_are_looked_at() -> None:
    """There are 60 ms for each of their rows; that hundreds more come after them changes nothing."""
    lanes = [lane([2.0 + 0.001 * number] * (1 if number < MOST_LANES else 20), slo_s=2.0) for number in range(100)]
    for order in (lanes, lanes[::-1]):
        decision = decided(FLUID, view(*order))
        assert ("large", 1) == chosen(decision)
        assert decision.plan is not None
        assert decision.plan.items == lanes[0].items


@BOTH
def test_with_every_slot_busy_the_next_loss_is_the_time_to_wake(rule: LookAhead) -> None:
    """Row 0 can wait for 18 ms, the kept row for 15 less the margin."""
    busy = view(lane([0.020]), kept=(lane([0.020], at=0),))._replace(free_slots=(), busy_until_s=(0.5,))
    decision = decided(rule, busy)
    assert (None, (), ()) == (decision.plan, decision.late, decision.settled)
    assert decision.wake_at == pytest.approx(0.020 - 0.003 - 0.002)


@BOTH
def test_the_earliest_deadline_of_all_families_comes_first(rule: LookAhead) -> None:
    """Letting the best score choose the family would starve the others."""
    other = replace(FAMILY, name="g")
    for first, second in ((0.05, 0.09), (0.09, 0.05)):
        plan = decided(rule, view(lane([first]), of(other, lane([second])))).plan
        assert plan is not None
        assert ("f" if first < second else "g") == plan.lane.key.family


@BOTH
def test_a_second_family_takes_time_from_the_first(rule: LookAhead) -> None:
    """Both have one price of time: beside 30 rows of another family a row gets less than alone."""
    other = of(replace(FAMILY, name="g"), lane([0.06] * 30))
    alone, beside = view(lane([0.05])), view(lane([0.05]), other)
    assert price(rule, beside) > price(rule, alone) == 0.0
    assert ("large", 1) == chosen(decided(FLUID, alone))
    assert "small" == chosen(decided(FLUID, beside))[0]


@BOTH
def test_work_without_a_deadline_runs_when_nothing_else_does(rule: LookAhead) -> None:
    """And not beside a row that has one."""
    key = LaneKey("f", -1, 0, 0, 0, True)
    item = Item(0, NEVER, 9, 9, 0, 0, 0, 0.0, NEVER)
    idle = Lane(key, FAMILY, LatencyModel(FAMILY, 1.0), 1, (item,), NEVER)
    alone = decided(rule, view()._replace(background=(idle,))).plan
    assert alone is not None
    assert (idle, Reason.SPARE_CAPACITY) == (alone.lane, alone.reason)
    for slack_s in (0.0025, 0.1):
        beside = decided(rule, view(lane([slack_s]))._replace(background=(idle,))).plan
        assert beside is not None
        assert not beside.lane.key.background


@BOTH
def test_models_quicker_than_the_rule_are_left_to_the_short_one(rule: LookAhead) -> None:
    """A batch of 20 us is not worth 60 us of thought."""
    for slacks in ([0.001], [0.001] * 8, [0.0005] * 20):
        given_view = view(of(TINY, lane(slacks)))
        assert SlackFraction().decide(None, given_view, 0.0)[1] == decided(rule, given_view)
    assert ("large", 1) == chosen(decided(replace(FLUID, decision_s=1e-6), view(of(TINY, lane([0.001])))))


@BOTH
def test_decisions_are_repeatable(rule: LookAhead) -> None:
    """Two memories that saw the same views decide the same."""
    views = [
        view(lane([0.004 * (1 + number % 9) for number in range(rows)]), lane([0.05], lowest=1), demand=counted)
        for counted in [demand(5)]
        for rows in (1, 4, 16, 30)
    ]
    for number in range(100):
        views[0].demand.observe(Request(100 + number, "f", (0,), 0.0, 0.05, NEVER), 0, 0.0)
    logs = []
    for _ in range(2):
        state: object = None
        log = []
        for given_view in views:
            state, decision = rule.decide(state, learnt_once(given_view), 0.0)
            log.append(decision)
        logs.append(log)
    assert logs[0] == logs[1]
