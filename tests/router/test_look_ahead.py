"""The look-ahead: what runs next when there is time, when there is little, and when there is far too little."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router.backlog import LaneKey
from router.demand import Demand
from router.family import Family, VariantProfile
from router.latency import LatencyModel, table
from router.memory import Memory
from router.outlook import MOST_POINTS, kind_of
from router.policies.look_ahead import MOST_LANES, RETRY_S, LookAhead
from router.policies.slack_fraction import SlackFraction
from router.request import NEVER, Item, Request
from router.view import Decision, Lane, View
from router.words import Reason
from tests.queued import FAMILY, chosen, demand, lane, view

FLUID = LookAhead()
CASCADES = LookAhead(cascades=True)
SPARE_S = 0.2 * 0.1
"""What the rule keeps clear of the rows' SLO of 100 ms, where some choice does."""
BOTH = pytest.mark.parametrize("rule", [FLUID, CASCADES])

TINY = Family(
    "tiny",
    (
        VariantProfile("small", 0.60, table((1, 8), (0.00002, 0.00009))),
        VariantProfile("middle", 0.75, table((1, 8), (0.00005, 0.00026))),
        VariantProfile("large", 0.90, table((1, 8), (0.0001, 0.00045))),
    ),
    max_batch=8,
    evidence=FAMILY.evidence,
)
"""The same, a hundred times quicker: 20 us for one row."""


def learnt_once(given_view: View) -> View:
    """The lanes of a family share what is learnt of its latencies, as they do in a scheduler."""
    known: dict[str, LatencyModel] = {}

    def shared(lanes: tuple[Lane, ...]) -> tuple[Lane, ...]:
        return tuple(some._replace(latency=known.setdefault(some.key.family, some.latency)) for some in lanes)

    return given_view._replace(lanes=shared(given_view.lanes), kept=shared(given_view.kept))


def decided(rule: LookAhead, given_view: View, now: float = 0.0) -> Decision:
    return rule.decide(None, learnt_once(given_view), now)[1]


def price(rule: LookAhead, given_view: View) -> float:
    """What a second is worth at the look that the decision took."""
    memory, _ = rule.decide(None, learnt_once(given_view), 0.0)
    assert isinstance(memory, Memory)
    return memory.price


def of(family: Family, some: Lane) -> Lane:
    """The same rows, of another family."""
    key = some.key._replace(family=family.name)
    return some._replace(key=key, family=family, latency=LatencyModel(family, 1.0))


def latest_start_s(rows: list[Item], slots: int) -> float:
    """How long a slot may be away from these rows of one lane: 9 ms of `small` for eight of them."""
    waits = [item.deadline_s - (count + 1) * 0.009 / 8 / slots for count, item in enumerate(rows)]
    return min(waits, default=NEVER)


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
def test_rows_that_nobody_can_answer_in_time_are_late_before_anything_runs(rule: LookAhead) -> None:
    """`small` takes 2 ms; also while every slot is busy."""
    queue = lane([0.0015, 0.05])
    for given_view in (view(queue), view(queue)._replace(free_slots=(), busy_until_s=(0.01,))):
        decision = decided(rule, given_view)
        assert (((queue, queue.items[0]),), None) == (decision.late, decision.plan)


@BOTH
def test_with_every_slot_busy_the_next_loss_is_the_time_to_wake(rule: LookAhead) -> None:
    """Row 0 can wait for 18 ms, the kept row for 15 less the margin."""
    busy = view(lane([0.020]), kept=(lane([0.020], at=0),))._replace(free_slots=(), busy_until_s=(0.5,))
    decision = decided(rule, busy)
    assert (None, (), ()) == (decision.plan, decision.late, decision.settled)
    assert decision.wake_at == pytest.approx(0.020 - 0.003 - 0.002)


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


@BOTH
def test_models_quicker_than_the_rule_are_left_to_the_short_one(rule: LookAhead) -> None:
    """A batch of 20 us is not worth 60 us of thought."""
    for slacks in ([0.001], [0.001] * 8, [0.0005] * 20):
        given_view = view(of(TINY, lane(slacks)))
        assert SlackFraction().decide(None, given_view, 0.0)[1] == decided(rule, given_view)
    assert ("large", 1) == chosen(decided(replace(FLUID, decision_s=1e-6), view(of(TINY, lane([0.001])))))


def test_kept_rows_of_others_are_not_forgotten_beside_quick_models() -> None:
    """The short rule knows no kept rows; the wake-up does."""
    kept = lane([0.020], at=0)
    decision = decided(CASCADES, view(of(TINY, lane([0.5])), kept=(kept,)))
    assert decision.wake_at == pytest.approx(0.020 - 0.003 - 0.002)


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


ALIKE = replace(
    FAMILY, variants=(replace(FAMILY.variants[0], latency=table((1, 8), (0.002, 0.016))), *FAMILY.variants[1:])
)
"""The same, but rows of `small` take 2 ms each in whatever batch."""


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
        (ALIKE, 0.03, 3),
        (ALIKE, 0.02, 1),
        (ALIKE, 0.002, 1),
        (FAMILY, 0.03, 8),
        (FAMILY, 0.02, 8),
        (FAMILY, 0.002, 8),
    ],
)
def test_in_overload_batches_leave_time_for_short_slos(
    rule: LookAhead, family: Family, slo_s: float, rows: int
) -> None:
    """The slot is held for three fifths of an SLO that a fifth of the rows to come have, less what goes before them.

    Where smaller batches make rows dearer, they are not made: whoever asks for the impossible would halve what is
    answered.
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
