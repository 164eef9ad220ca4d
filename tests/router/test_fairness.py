"""Fair shares: filled like water, kept through bursts, nothing to anybody while there is time for all."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router.contract import Record, Slot
from router.fairness import Fairness, jain
from router.family import EVEN, Family, Share, VariantProfile
from router.flows import MOST_FLOWS, UNSEEN, WINDOW_S, Flows
from router.latency import LatencyModel, table
from router.policies import policy_named
from router.request import Request
from router.scheduler import Scheduler
from router.water_filling import allotment, water_level
from router.words import Outcome, Reason, WhenLate

ASKS = st.lists(
    st.tuples(st.floats(0.0, 3.0), st.builds(Share, st.floats(0.1, 5.0), st.floats(0.0, 0.1))), min_size=1, max_size=10
)


@example([(1.0, EVEN), (5e-324, Share(2.0))], 1.0).via("demand that has faded to the least number there is")
@given(ASKS, st.floats(0.5, 4.0))
def test_shares_add_up_to_the_machine_or_to_what_is_asked(asks: list[tuple[float, Share]], capacity: float) -> None:
    """Nobody gets more than asked or less than guaranteed, and nothing is left while somebody wants it."""
    level = water_level(asks, capacity)
    given_ = [allotment(asked, share, level, capacity) for asked, share in asks]
    asked_for = sum(asked for asked, _ in asks)
    assert sum(given_) == pytest.approx(min(asked_for, capacity))
    for (asked, share), got in zip(asks, given_, strict=True):
        assert min(asked, share.guaranteed * capacity) - 1e-9 <= got <= asked + 1e-9


@given(ASKS, st.floats(0.5, 4.0))
def test_who_gets_less_than_asked_has_no_less_than_anybody(asks: list[tuple[float, Share]], capacity: float) -> None:
    """Max-min: taking from another to give to the poorest would make that one poorer still, weight for weight."""
    level = water_level(asks, capacity)
    for asked, share in asks:
        got = allotment(asked, share, level, capacity)
        if got < asked - 1e-9:
            assert got / share.weight >= min(level, math.inf) - 1e-9


@pytest.mark.parametrize(
    ("asks", "expected"),
    [
        ([(0.2, EVEN), (0.3, EVEN)], [0.2, 0.3]),
        ([(0.2, EVEN), (3.0, EVEN)], [0.2, 0.8]),
        ([(3.0, EVEN), (3.0, Share(3.0))], [0.25, 0.75]),
        ([(3.0, Share(1.0, 0.6)), (3.0, EVEN)], [0.6, 0.4]),
        ([(0.1, Share(1.0, 0.6)), (3.0, EVEN)], [0.1, 0.9]),
    ],
    ids=["enough for both", "one wants more", "by weight", "guaranteed", "a guarantee that is not used"],
)
def test_shares_of_one_second_per_second(asks: list[tuple[float, Share]], expected: list[float]) -> None:
    """Cases that can be told without computing."""
    level = water_level(asks, 1.0)
    assert expected == pytest.approx([allotment(asked, share, level, 1.0) for asked, share in asks])


@pytest.mark.parametrize(
    ("values", "expected"), [([0.5, 0.5], 1.0), ([1.0, 0.0], 0.5), ([1.0, 0.0, 0.0, 0.0], 0.25), ([0.0, 0.0], 1.0)]
)
def test_jains_index(values: list[float], expected: float) -> None:
    """1 where all have the same, 1 / n where one has everything."""
    assert expected == jain(values)


def request(number: int, now: float, family: str = "loud", tenant: str = "default", slo_s: float = 0.1) -> Request:
    return Request(number, family, (0,), now, now + slo_s, tenant=tenant)


@pytest.mark.parametrize(("stretch", "least", "most"), [(1.0, 85, 97), (4.0, 50, 65)])
def test_a_burst_is_beyond_its_share_and_a_trickle_is_not(stretch: float, least: int, most: int) -> None:
    """Two families on one slot: one asks for a tenth of it, the other suddenly for all.

    Where the rows of the first take four times as long as in full batches, it is kept so much more.
    """
    fairness = Fairness(1)
    for number in range(100):
        now = 0.01 * number
        fairness.ask(request(number, now, "calm"), EVEN, 0.001, now, stretch)
        fairness.admit(request(number, now, "calm"), EVEN, 0.001, now + 0.1, now)
    within = 0
    for number in range(200):
        loud = request(number, 1.0)
        fairness.ask(loud, EVEN, 0.001, 1.0)
        if fairness.beyond(loud, EVEN, 0.001, 1.1, 1.0) is None:
            fairness.admit(loud, EVEN, 0.001, 1.1, 1.0)
            within += 1
    # Of the 100 ms until their deadline the calm family needs some seven, with what is kept in reserve and remembered.
    assert least <= within <= most
    assert fairness.beyond(request(999, 1.0, "calm"), EVEN, 0.001, 1.1, 1.0) is None


@pytest.mark.parametrize(("known", "flows"), [(None, 6), ({}, 1), ({"t1": EVEN, "t2": Share(2.0)}, 3)])
def test_tenants_that_are_not_known_have_one_share_together(known: dict[str, Share] | None, flows: int) -> None:
    """Made-up names do not add up to more; where nobody says who is known, each has its own."""
    shares = Fairness(1, known)
    for number in range(6):
        shares.ask(request(number, 0.0, tenant=f"t{number}"), EVEN, 0.01, 0.0)
    assert flows == shares.tenants


def test_other_shares_hold_from_then_on() -> None:
    """A tenant that is guaranteed half of a crowded machine is within it with what was beyond its share before."""
    fairness = Fairness(1, {"gold": Share(), "loud": Share(100.0)})

    def third_at(now: float) -> Flows | None:
        gold = request(2, now, tenant="gold")
        for name, work_s in (("loud", 2.0), ("gold", 0.01)):
            fairness.ask(request(1, now, tenant=name), EVEN, work_s, now)
        for _ in range(2):
            fairness.admit(gold, EVEN, 0.01, now + 0.1, now)
        return fairness.beyond(gold, EVEN, 0.01, now + 0.1, now)

    assert third_at(0.0) is not None
    fairness.change({"gold": Share(1.0, 0.5), "loud": Share(100.0)})
    assert third_at(9.0) is None


def test_a_share_too_small_for_one_request_within_its_slo_is_a_share_all_the_same() -> None:
    """64 flows ask for half as much again as there is; on its own one's requests would take longer than their SLO."""
    flows = Flows(1.0)
    work_s, every_s, slo_s = 0.001, 0.0426, 0.03
    owed = 0
    for turn in range(400):
        for number in range(64):
            now = every_s * (turn + number / 64)
            flows.ask(str(number), EVEN, work_s, slo_s, now)
            asked = str(number), EVEN, work_s, slo_s, now + slo_s, now
            is_owed = flows.is_owed(*asked)
            assert turn < 200 or not flows.is_within(*asked)
            if is_owed:
                flows.admit(*asked)
                owed += turn >= 200
    assert 0.6 < owed / (200 * 64) < 0.72


def test_what_is_owed_to_a_family_is_not_owed_to_a_tenant_that_had_its_share() -> None:
    """A request is to be within both of its shares, or owed to both."""
    fairness = Fairness(1)
    for family in range(64):
        for tenant in ("loud", "calm"):
            asked = request(family, 0.0, str(family), tenant, slo_s=0.03)
            fairness.ask(asked, EVEN, 0.012, 0.0)
    loud = request(99, 0.0, "0", "loud", slo_s=0.03)
    first = fairness.beyond(loud, EVEN, 0.012, 0.03, 0.0)
    assert first is not None
    assert fairness.is_owed(loud, EVEN, first, 0.012, 0.03, 0.0)
    for family in range(1, 4):
        fairness.admit(request(family, 0.0, str(family), "loud", slo_s=0.03), EVEN, 0.012, 0.03, 0.0)
    second = fairness.beyond(loud, EVEN, 0.012, 0.03, 0.0)
    assert second is not None
    assert not fairness.is_owed(loud, EVEN, second, 0.012, 0.03, 0.0)


def test_what_is_owed_to_a_flow_does_not_grow_with_what_it_asks_for() -> None:
    """Requests that double in size are not each as small as what is done before it."""
    flows = Flows(1.0)
    for turn in range(100):
        for number in range(10):
            flows.ask(str(number), EVEN, 0.012, 0.03, 0.1 * turn)
    now = 10.0
    owed_s = 0.0
    for work_s in [0.003 * 2**double for double in range(8)]:
        asked = "0", EVEN, work_s, 0.03, now + 0.03, now
        if flows.is_owed(*asked):
            flows.admit(*asked)
            owed_s += work_s
    assert 0.0 < owed_s < 0.05


def test_a_flow_that_had_hardly_a_share_has_its_share_when_there_is_one() -> None:
    """What it was let in for while others had all that was guaranteed to them is not held against it afterwards."""
    flows = Flows(1.0)
    half = Share(1.0, 0.5)
    for name, share in (("a", EVEN), ("b", half), ("c", half)):
        flows.ask(name, share, 1.0, 0.1, 0.0)
    asked = "a", EVEN, 0.001, 0.1, 0.1, 0.0
    flows.ask(*asked[:4], 0.0)
    assert not flows.is_within(*asked)
    flows.admit(*asked)
    for name in ("a", "c"):
        flows.ask(name, EVEN, 0.6, 0.1, 20.0)
    assert flows.is_within("a", EVEN, 0.001, 0.1, 20.1, 20.0)


def test_what_was_let_in_beyond_a_share_is_not_held_against_a_flow() -> None:
    """After using time that nobody wanted, a flow has its share again as soon as its deadlines are over."""
    flows = Flows(1.0)
    for name in ("a", "b"):
        flows.ask(name, EVEN, 0.5 * WINDOW_S, 0.1, 0.0)
    for _ in range(1000):
        flows.admit("a", EVEN, 0.01, 0.1, 0.1, 0.0)
    assert not flows.is_within("a", EVEN, 0.01, 0.1, 0.1, 0.0)
    assert flows.is_within("a", EVEN, 0.01, 0.1, 0.3, 0.2)


def test_flows_are_bounded() -> None:
    """However many names there are; those beyond the bound share one."""
    flows = Flows(1.0)
    for number in range(3 * MOST_FLOWS):
        flows.ask(f"tenant-{number}", EVEN, 0.01, 0.1, 0.0)
        flows.admit(f"tenant-{number}", EVEN, 0.01, 0.1, 0.1, 0.0)
    assert MOST_FLOWS + 1 == len(flows)


def families(*shares: Share) -> list[Family]:
    """`calm`, `loud`: one variant each, of which a row in a full batch takes a millisecond."""
    only = (VariantProfile("only", 0.7, table((1, 8), (0.002, 0.008))),)
    return [
        Family(name, only, max_batch=8, share=share)
        for name, share in zip(("calm", "loud"), shares or (EVEN, EVEN), strict=True)
    ]


def attained(
    *, fair: bool, by_tenant: bool, loud_times: int, when_late: WhenLate = WhenLate.SHED
) -> tuple[float, float, set[tuple[Outcome, Reason]]]:
    """Attainment of the calm and the loud flow on one slot, and how requests were refused.

    Both ask for a fifth of the machine, the loud one in its second second for `loud_times` as much.
    """
    scheduler = Scheduler(families(), [Slot(0)], policy_named("fastest"), margins={"calm": 1.0, "loud": 1.0}, fair=fair)
    exact = LatencyModel(families()[0], 1.0)
    events: list[tuple[float, str]] = [(0.005 * number, "calm") for number in range(400)]
    events += [(0.0025 + 0.005 * number, "loud") for number in range(200)]
    events += [(1.0 + 0.005 / loud_times * number, "loud") for number in range(200 * loud_times)]
    records: list[Record] = []
    running: dict[int, float] = {}
    wake_at = math.inf
    events.sort()
    number = 0
    while events or running or wake_at < math.inf:
        ends_s = min(running.values(), default=math.inf)
        now = min(events[0][0] if events else math.inf, ends_s, wake_at)
        for batch in [batch for batch, end_s in running.items() if end_s <= now]:
            del running[batch]
            scheduler.complete(batch, now)
        while events and events[0][0] <= now:
            _, flow = events.pop(0)
            family, tenant = ("calm", flow) if by_tenant else (flow, "default")
            # Loud rows are more urgent by their deadline: they would go first.
            asked = request(number, now, family, tenant, 0.05 if flow == "loud" else 0.1)
            scheduler.submit(asked._replace(when_late=when_late) if flow == "loud" else asked, now)
            number += 1
        poll = scheduler.poll(now)
        records += poll.records
        for dispatch in poll.dispatches:
            running[dispatch.batch_id] = now + exact.median_s(0, len(dispatch.items), 0)
        wake_at = poll.wake_at
    assert number == len(records)
    mine = [[r.slo_met for r in records if flow in {r.tenant if by_tenant else r.family}] for flow in ("calm", "loud")]
    refused = {(r.outcome, r.reason) for r in records if not r.slo_met}
    return sum(mine[0]) / len(mine[0]), sum(mine[1]) / len(mine[1]), refused


@pytest.mark.parametrize("by_tenant", [False, True], ids=["families", "tenants"])
def test_a_burst_costs_those_who_burst(*, by_tenant: bool) -> None:
    """Ten times as many requests of one family or tenant: without shares the other loses, with them it does not."""
    unfair_calm, _, _ = attained(fair=False, by_tenant=by_tenant, loud_times=10)
    calm, loud, refused = attained(fair=True, by_tenant=by_tenant, loud_times=10)
    assert unfair_calm < 0.95
    assert calm >= 0.995
    assert loud < 0.7
    assert (Outcome.REJECTED_INFEASIBLE, Reason.OVER_SHARE) in refused


@pytest.mark.parametrize("by_tenant", [False, True], ids=["families", "tenants"])
def test_who_wants_late_answers_does_not_pass_by_the_shares(*, by_tenant: bool) -> None:
    """What is beyond a share is not refused then, but comes after all that can be in time."""
    calm, loud, _ = attained(fair=True, by_tenant=by_tenant, loud_times=10, when_late=WhenLate.SERVE)
    assert calm >= 0.97
    assert loud < 0.7


@pytest.mark.parametrize("by_tenant", [False, True], ids=["families", "tenants"])
def test_nobody_is_refused_while_there_is_time_for_all(*, by_tenant: bool) -> None:
    """Twice as many requests than usual still fit; shares mean nothing then."""
    assert (1.0, 1.0, set()) == attained(fair=True, by_tenant=by_tenant, loud_times=2)


@pytest.mark.parametrize("stretch", [1.0, 8.0])
def test_rows_that_come_alone_make_no_crowd(stretch: float) -> None:
    """Where time is short they share batches: others are kept from more, and all together ask for the same.

    Who asks for the least over its share still does.
    """
    flows = Flows(1.0)
    for name, work_s, times in (("bulk", 0.8, 1.0), ("small", 0.1, stretch)):
        flows.ask(name, EVEN, work_s * WINDOW_S, 0.1, 0.0, times)
    for name in ("bulk", "small"):
        flows.is_within(name, EVEN, 0.001, 0.1, 0.1, 1.0)
    asked = {name: flows.excess(name, 1.0) for name in ("bulk", "small")}
    assert flows.crowd == pytest.approx(0.9 * math.exp(-1.0) / -math.expm1(-1.0 - UNSEEN))
    assert asked["small"] < asked["bulk"]
