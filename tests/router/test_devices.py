"""Slots of several devices: who gets which batch, and who waits for a better device."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.contract import Dispatch, Poll, Slot
from router.devices import AcrossDevices, Reach, without
from router.family import Family, VariantProfile
from router.latency import LatencyModel, table
from router.limits import Limits
from router.policies import policy_named
from router.policies.fixed import Fixed
from router.request import NEVER, Request
from router.scheduler import Scheduler
from router.triage import first_in_time
from router.view import Decision, Kinds, Plan, View
from router.words import Outcome, Reason
from tests.queued import FAMILY, lane, view
from tests.router.wide_and_narrow import NAMED, SLOTS, TWO, replace_latency, two

WAITING = ("proteus",)
"""Lets a slot idle to fill a batch."""


class Served:
    """A scheduler with a wide and a narrow slot."""

    def __init__(self, policy: str, family: Family = TWO, slots: tuple[Slot, ...] = SLOTS, ahead: float = 0.0) -> None:
        self.scheduler = Scheduler([family], slots, policy_named(policy), Limits(ahead=ahead), {"f": 1.0})
        self.number = 0

    def ask(self, slo_s: float, now: float = 0.0) -> list[Dispatch]:
        """One request more; what is started by it."""
        self.number += 1
        self.scheduler.submit(Request(self.number, "f", (0,), now, now + slo_s), now)
        return self.poll(now)

    def poll(self, now: float) -> list[Dispatch]:
        """What is started then; nobody is refused."""
        poll = self.scheduler.poll(now)
        assert all(record.outcome is not Outcome.REJECTED_INFEASIBLE for record in poll.records)
        return list(poll.dispatches)


@pytest.mark.parametrize("policy", [name for name in NAMED if name not in WAITING])
def test_the_faster_of_two_free_devices_takes_a_lone_row(policy: str) -> None:
    """Where both would do, the row is answered sooner."""
    started = Served(policy).ask(0.5)
    assert ["wide"] == [dispatch.device for dispatch in started]


@pytest.mark.parametrize("policy", ["casc", "fluid", "slack-fraction", "fastest", "slackfit"])
def test_a_row_that_only_the_busy_device_can_still_do_waits_for_it(policy: str) -> None:
    """The narrow device, though free, neither takes the row nor has it refused; the wide one answers it in time."""
    served = Served(policy)
    (first,) = served.ask(0.02)
    assert [] == served.ask(0.0035, now=0.001)
    served.scheduler.complete(first.batch_id, 0.0015)
    (second,) = served.poll(0.0015)
    assert ("wide", "small") == (second.device, second.variant)


@pytest.mark.parametrize("policy", ["casc", "fluid", "slack-fraction", "fastest", "slackfit"])
def test_a_narrow_device_takes_what_it_can_do(policy: str) -> None:
    """While the wide one is busy, work with enough time goes to the narrow one, planned in its own seconds."""
    served = Served(policy)
    served.ask(0.5)
    (second,) = served.ask(0.5, now=0.001)
    assert "narrow" == second.device
    variant = FAMILY.index(second.variant)
    assert variant is not None
    expected_s = 2.0 * LatencyModel(FAMILY, 1.0).median_s(variant, 1, 0)
    assert expected_s == pytest.approx(second.predicted_run_s)


def flat(slower: float, seconds: dict[str, tuple[float, float]], max_batch: int) -> Family:
    """Variants by their seconds for one row and for the largest batch, and a device `narrow` that is so much slower."""
    ends = (1, max_batch)
    variants = [
        VariantProfile(name, 0.6 + number / 10, table(ends, row)) for number, (name, row) in enumerate(seconds.items())
    ]
    return two(Family("f", tuple(variants), max_batch=max_batch), slower)


@pytest.mark.parametrize("policy", ["casc", "fluid", "slack-fraction", "fastest"])
def test_a_slow_device_reaches_past_all_rows_that_are_too_late_for_it(policy: str) -> None:
    """Longer than what policies see of a lane is the crowd that only the busy device can do; nothing is asked anew."""
    family = flat(4.0, {"small": (0.0101, 0.0164), "large": (0.0202, 0.0328)}, max_batch=64)
    scheduler = Scheduler([family], SLOTS, policy_named(policy), Limits(), {"f": 1.0})
    scheduler.submit(Request(1, "f", (0,) * 32, 0.0, 1.0, pinned="small"), 0.0)
    assert ["wide"] == [dispatch.device for dispatch in scheduler.poll(0.0).dispatches]
    scheduler.submit(Request(2, "f", (0,) * 40, 0.0005, 0.0385), 0.0005)
    scheduler.submit(Request(3, "f", (0,) * 8, 0.0005, 0.2), 0.0005)
    poll = scheduler.poll(0.0005)
    assert [("narrow", {3})] == [(d.device, {item.request_id for item in d.items}) for d in poll.dispatches]
    assert poll.wake_at > 0.0005
    assert 40 <= scheduler.queued_rows


def test_rows_that_a_device_is_past_make_room_for_those_behind() -> None:
    """A device sees as many rows of a lane as another, whichever are too late for it."""
    rows = replace_latency(lane([0.01 * n for n in range(1, 11)]))
    whole = view(rows._replace(items=rows.items[:3], rows=rows.items))
    (seen,) = without(whole, {0, 1, 5}, {rows.key: Reach(4, 0)}).lanes
    assert ([4, 6, 7], 5) == ([item.sequence for item in seen.items], seen.depth)


def test_a_rule_that_wants_a_dearer_variant_is_asked_few_times_about_a_long_lane() -> None:
    """Of 4,000 rows the narrow device could do all, but not with that variant; the last ten it can do so."""
    asked: list[int] = []

    class Told(Fixed):
        def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
            asked.append(len(view.lanes[0].items))
            return super().decide(state, view, now)

    kinds = Kinds.of(SLOTS, {"wide": 1.0, "narrow": 0.5})
    rows = replace_latency(lane([0.015] * 3990 + [0.1] * 10))
    seen = view(rows._replace(items=rows.items[:32], rows=rows.items))
    seen = seen._replace(free_slots=(1,), busy_slots=(0,), busy_until_s=(0.01,), kinds=kinds)
    decision = AcrossDevices(Told("best"), kinds.names).decide(None, seen, 0.0)[1]
    assert decision.plan is not None
    assert decision.plan.items[0] is rows.items[3990]
    assert len(asked) < 20


def test_the_first_row_that_a_device_can_do_is_found_among_all() -> None:
    """By the quickest allowed variant, or the quickest better one of kept rows, whose answers go out 2 ms early."""
    rows = lane([0.001 * n for n in range(1, 11)])
    kept = lane([0.001 * n for n in range(1, 11)], at=0)
    assert 2 == first_in_time(rows._replace(rows=rows.items), 0.0, 0.002)
    assert 5 == first_in_time(kept._replace(rows=kept.items), 0.0, 0.002)


@pytest.mark.parametrize("ahead", [0.0, 0.7])
def test_a_row_that_a_rule_lets_wait_for_company_is_not_refused_for_the_busy_device(ahead: float) -> None:
    """By the end of the wide one's batch it would be late; the narrow one is free and starts it when it must."""
    family = two(Family("f", (FAMILY.variants[0], FAMILY.variants[2]), max_batch=8), 1.5)
    served = Served("proteus", family, ahead=ahead)
    served.scheduler.submit(Request(9, "f", (0,), 0.0, 0.02, pinned="large"), 0.0)
    (first,) = until_something(served.scheduler, 0.0).dispatches
    ends_s = first.started_s + first.predicted_s
    now = ends_s - 0.012
    served.scheduler.submit(Request(10, "f", (0,), now, ends_s + 0.0015, pinned="small"), now)
    poll = until_something(served.scheduler, now)
    assert ["narrow"] == [dispatch.device for dispatch in poll.dispatches]
    assert () == poll.records


def until_something(scheduler: Scheduler, now: float) -> Poll:
    """The first poll from then on, each when the one before wanted it, that starts or ends something."""
    for _ in range(100):
        poll = scheduler.poll(now)
        if poll.dispatches or poll.records:
            return poll
        now = poll.wake_at
    raise AssertionError("nothing happens")


class Counting:
    """Takes the first row with the best variant, and counts what it plans for each device."""

    def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
        """See `router.view.Policy`; the state is the number of plans."""
        count = state if isinstance(state, int) else 0
        if not view.free_slots or not view.lanes:
            return count, Decision((), None, NEVER)
        (rows, *_) = view.lanes
        plan = Plan(view.free_slots[0], rows, 2, rows.items[:1], Reason.FIXED)
        return count + 1, Decision((), plan, NEVER)


def test_rules_that_do_not_weigh_plan_for_one_device_only() -> None:
    """What they remember of plans is of those that are taken."""
    kinds = Kinds.of(SLOTS, {"wide": 1.0, "narrow": 0.5})
    rows = replace_latency(lane([0.1]))
    seen = view(rows)._replace(free_slots=(0, 1), kinds=kinds)
    state, decision = AcrossDevices(Counting(), kinds.names).decide(None, seen, 0.0)
    assert decision.plan is not None
    assert ({"wide": 1}, 0) == (state, decision.plan.slot)


@pytest.mark.parametrize("policy", ["casc", "slack-fraction", "fastest"])
@pytest.mark.parametrize("slots", [SLOTS, (Slot(0), Slot(1))])
def test_work_without_a_deadline_runs_while_another_slot_is_free(policy: str, slots: tuple[Slot, ...]) -> None:
    """A dear row does not wait for those who are expected: another slot is there for them, whatever its device."""
    served = Served(policy, slots=slots)
    for step in range(5):
        now = 0.05 * step
        (quick,) = served.ask(0.02, now=now)
        served.scheduler.complete(quick.batch_id, now + 0.01)
    served.scheduler.submit(Request(9, "f", (0,), 0.25, NEVER, pinned="large"), 0.25)
    assert [9] == [item.request_id for dispatch in served.poll(0.25) for item in dispatch.items]


def test_a_queue_is_shared_out_over_the_free_slots_of_all_devices() -> None:
    """Nine rows: six for the wide one and three for the narrow one, which is half as fast."""
    scheduler = Scheduler([TWO], SLOTS, policy_named("slack-fraction"), Limits(), {"f": 1.0})
    scheduler.submit(Request(1, "f", (0,) * 9, 0.0, 0.14, pinned="large"), 0.0)
    assert [("wide", 6), ("narrow", 3)] == [(d.device, len(d.items)) for d in scheduler.poll(0.0).dispatches]


@pytest.mark.parametrize("policy", ["casc", "fluid"])
@pytest.mark.parametrize("quick", [1.0, 0.2, 0.1, 0.05, 0.03, 0.02])
def test_a_row_goes_to_the_faster_device_though_nothing_was_weighed_there(policy: str, quick: float) -> None:
    """On the wide one batches take hardly longer than a decision, so the rule does not think; on the other it may."""
    seconds = {"small": (0.002, 0.009), "middle": (0.005, 0.026), "large": (0.010, 0.045)}
    family = flat(2.0, {name: (quick * one, quick * most) for name, (one, most) in seconds.items()}, max_batch=8)
    assert ["wide"] == [dispatch.device for dispatch in Served(policy, family).ask(0.5 * quick)]


@pytest.mark.parametrize("policy", ["casc", "fluid", "slack-fraction"])
def test_a_row_is_not_late_where_a_dearer_variant_is_quicker_on_the_free_device(policy: str) -> None:
    """The cheapest of the wide one takes 6 ms on the narrow one, the other 4 ms."""
    variants = [
        VariantProfile(name, quality, table((1, 8), (wide, 4 * wide)), elsewhere=(("narrow", table((1, 8), narrow)),))
        for name, quality, wide, narrow in (("a", 0.7, 0.002, (0.006, 0.024)), ("b", 0.8, 0.003, (0.004, 0.016)))
    ]
    scheduler = Scheduler([Family("f", tuple(variants), max_batch=8)], SLOTS, policy_named(policy), None, {"f": 1.0})
    scheduler.submit(Request(1, "f", (0,) * 8, 0.0, 0.05, pinned="b"), 0.0)
    assert ["wide"] == [dispatch.device for dispatch in scheduler.poll(0.0).dispatches]
    scheduler.submit(Request(2, "f", (0,), 0.001, 0.0065), 0.001)
    assert [("narrow", "b")] == [(d.device, d.variant) for d in scheduler.poll(0.001).dispatches]


def test_a_row_is_refused_when_no_device_can_do_it() -> None:
    """What is too late for the wide one is too late."""
    served = Served("fluid")
    (first,) = served.ask(0.02)
    served.ask(0.0035, now=0.001)
    records = served.scheduler.poll(0.003).records
    assert [Outcome.REJECTED_INFEASIBLE] == [record.outcome for record in records]
    served.scheduler.complete(first.batch_id, 0.01)


def test_a_busy_device_is_given_its_next_batch_while_another_is_left_free() -> None:
    """A row that only the wide device can do is decided ahead though the narrow one is idle."""
    served = Served("fluid", ahead=0.7)
    (first,) = served.ask(0.02)
    wake_at = first.started_s + first.predicted_s - 0.001
    started = served.ask(0.0035, now=wake_at)
    assert [("wide", True)] == [(dispatch.device, dispatch.ahead) for dispatch in started]


@given(slacks_s=st.lists(st.floats(0.001, 1.0), min_size=1, max_size=20), gone=st.sets(st.integers(0, 25)))
def test_rows_out_of_sight_are_neither_seen_nor_counted(slacks_s: list[float], gone: set[int]) -> None:
    """The others keep their order, and lanes without any are not there."""
    whole = view(lane(slacks_s))
    rest = without(whole, gone)
    expected = [item for item in whole.lanes[0].items if item.sequence not in gone]
    assert expected == [item for some in rest.lanes for item in some.items]
    assert len(expected) == sum(some.depth for some in rest.lanes)
