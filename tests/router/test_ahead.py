"""Batches decided ahead, as the scheduler does it: who is answered must not suffer for what is committed early."""

from __future__ import annotations

import pytest

from router.contract import Dispatch, Slot
from router.family import Family, VariantProfile
from router.latency import table
from router.limits import Limits
from router.policies import policy_named
from router.request import NEVER, Request
from router.scheduler import Scheduler
from router.view import Decision, Plan, View
from router.words import Outcome, Reason

QUICK = Family("quick", (VariantProfile("only", 0.9, table((1, 8), (0.010, 0.080))),), max_batch=8)
BRISK = Family("brisk", (VariantProfile("only", 0.9, table((1, 8), (0.002, 0.016))),), max_batch=8)
SLOW = Family("slow", (VariantProfile("only", 0.9, table((1, 8), (0.200, 1.600))),), max_batch=8)
BOTH = pytest.mark.parametrize("policy", ["casc", "fluid", "slack-fraction", "fastest"])


def scheduler(policy: str, slots: int = 1) -> Scheduler:
    """Latencies are planned as they are profiled."""
    known = {family.name: 1.0 for family in (QUICK, BRISK, SLOW)}
    return Scheduler(
        [QUICK, BRISK, SLOW], [Slot(i) for i in range(slots)], policy_named(policy), Limits(ahead=0.7), known
    )


def ask(some: Scheduler, number: int, family: str, now: float, slo_s: float) -> list[Dispatch]:
    some.submit(Request(number, family, (0,), now, now + slo_s), now)
    return list(some.poll(now).dispatches)


@BOTH
def test_rows_wait_for_the_slot_that_is_free_first(policy: str) -> None:
    """One slot may be given its next batch, the other not yet, but that will be free before."""
    some = scheduler(policy, slots=2)
    slow = ask(some, 0, "slow", 0.0, 9.0)
    brisk = ask(some, 1, "brisk", 0.195, 9.0)
    assert [slow[0].slot, brisk[0].slot] == [0, 1]
    assert [] == ask(some, 2, "brisk", 0.1951, 0.060)
    some.complete(brisk[0].batch_id, 0.197)
    poll = some.poll(0.197)
    assert [(1, False)] == [(dispatch.slot, dispatch.ahead) for dispatch in poll.dispatches]
    assert [Outcome.SERVED] == [record.outcome for record in poll.records]


@BOTH
def test_work_without_a_deadline_is_not_decided_ahead(policy: str) -> None:
    """It would hold the slot for 200 ms; a row that comes before the slot is free goes first."""
    some = scheduler(policy)
    first = ask(some, 0, "quick", 0.0, 1.0)
    assert [] == ask(some, 1, "slow", 0.006, NEVER)
    ahead = ask(some, 2, "quick", 0.007, 0.1)
    assert [("quick", True)] == [(dispatch.family, dispatch.ahead) for dispatch in ahead]
    some.complete(first[0].batch_id, 0.010)
    assert () == some.poll(0.010).dispatches
    some.complete(ahead[0].batch_id, 0.020)
    waits = some.poll(0.020)
    assert ((), True) == (waits.dispatches, waits.wake_at < NEVER), "others may come who cannot wait 200 ms"
    assert ["slow"] == [dispatch.family for dispatch in some.poll(60.0).dispatches]


def test_a_long_batch_commits_its_successor_milliseconds_before_its_end() -> None:
    """Not 140 ms before the end of one of 200: who comes meanwhile still has a choice."""
    some = scheduler("fastest")
    ask(some, 0, "slow", 0.0, 9.0)
    assert [] == ask(some, 1, "slow", 0.1, 9.0)
    wake_at = some.poll(0.15).wake_at
    assert wake_at == pytest.approx(0.194)
    assert [True] == [dispatch.ahead for dispatch in some.poll(wake_at + 1e-6).dispatches]


def test_nobody_waits_less_than_nothing() -> None:
    """A batch decided after the one before had ended, which the loop did not know yet, begins when it is decided."""
    some = scheduler("fastest")
    first = ask(some, 0, "quick", 0.0, 9.0)
    second = ask(some, 1, "quick", 0.025, 9.0)
    assert second[0].ahead
    some.complete(first[0].batch_id, 0.026, 0.010, since_s=0.016)
    some.complete(second[0].batch_id, 0.036, 0.010)
    record = next(record for record in some.poll(0.036).records if record.request_id == 1)
    assert record.queue_s == pytest.approx(0.0, abs=1e-12)
    assert record.compute_s == pytest.approx(0.011)


def test_a_batch_that_has_not_begun_cannot_be_answered() -> None:
    """It may fail before, and the slot goes on with what it runs."""
    some = scheduler("fastest")
    ask(some, 0, "quick", 0.0, 9.0)
    ahead = ask(some, 1, "quick", 0.006, 9.0)
    with pytest.raises(KeyError):
        some.complete(ahead[0].batch_id, 0.007)
    some.fail(ahead[0].batch_id, Reason.EXECUTOR_ERROR, 0.007)
    assert [Outcome.FAILED] == [record.outcome for record in some.poll(0.007).records]


class Twice:
    """A policy with a bug: it plans on a slot that is not there."""

    def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
        """The first row, on slot 7."""
        lane = view.lanes[0]
        return None, Decision((), Plan(7, lane, 0, lane.items[:1], Reason.FIXED), NEVER)


def test_a_plan_that_is_refused_loses_nobody() -> None:
    """Its rows still wait, and a shutdown gives them their outcome."""
    some = Scheduler([QUICK], [Slot(0)], Twice())
    some.submit(Request(0, "quick", (0,), 0.0, 1.0), 0.0)
    with pytest.raises(ValueError, match="slot 7"):
        some.poll(0.0)
    assert some.queued_rows == 1
    some.abandon_all(0.0)
    assert [Outcome.FAILED] == [record.outcome for record in some.poll(0.0).records]
