"""A variant breaks: its rows go to another one where there is time, and nobody is answered by it until it is probed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from router.contract import (
    NEVER,
    Dispatch,
    Family,
    Outcome,
    Poll,
    Reason,
    Record,
    Request,
    Slot,
    VariantProfile,
    WhenLate,
)
from router.latency import table
from router.limits import Limits
from router.policies import policy_named
from router.quarantine import FAULTS
from router.scheduler import Scheduler

FAMILY = Family(
    "f",
    (
        VariantProfile("small", 0.7, table((1, 8), (0.001, 0.008))),
        VariantProfile("middle", 0.8, table((1, 8), (0.004, 0.030))),
        VariantProfile("large", 0.9, table((1, 8), (0.010, 0.080))),
    ),
    max_batch=8,
)


class Bench:
    """A scheduler whose batches end as a test wants, and all that came out of it."""

    def __init__(
        self, family: Family = FAMILY, *, slots: int = 1, policy: str = "most-accurate", rows: int = 100
    ) -> None:
        limits = Limits(rows, hang_s=1.0)
        self.scheduler = Scheduler([family], [Slot(i) for i in range(slots)], policy_named(policy), limits, {"f": 1.0})
        self.running: list[Dispatch] = []
        self.records: list[Record] = []

    def submit(self, number: int, now: float = 0.0, *, slo_s: float = 0.5, rows: int = 1, **changes: object) -> None:
        base = Request(number, "f", (0,) * rows, now, now + slo_s, NEVER)
        changed = base._replace(**changes)  # type: ignore[arg-type]  # field types are the caller's business in a test
        self.scheduler.submit(changed, now)
        self.poll(now)

    def poll(self, now: float) -> Poll:
        poll = self.scheduler.poll(now)
        self.running += poll.dispatches
        self.records += poll.records
        return poll

    def fail(self, now: float, reason: Reason = Reason.EXECUTOR_ERROR) -> Poll:
        self.scheduler.fail(self.running.pop(0).batch_id, reason, now)
        return self.poll(now)

    def complete(self, now: float) -> Poll:
        self.scheduler.complete(self.running.pop(0).batch_id, now)
        return self.poll(now)

    def variants(self) -> list[str]:
        return [dispatch.variant for dispatch in self.running]

    def ends(self) -> list[tuple[int, Outcome, Reason, str]]:
        return [(record.request_id, record.outcome, record.reason, record.variant) for record in self.records]


@pytest.mark.parametrize("reason", sorted(FAULTS))
@pytest.mark.parametrize("policy", ["casc", "fluid", "most-accurate", "slackfit", "ramsis", "fixed:large"])
def test_its_rows_are_answered_by_another_variant(reason: Reason, policy: str) -> None:
    """With time left they wait again, and the next best answers; the record says that it took two."""
    bench = Bench(policy=policy)
    bench.submit(1)
    assert ["large"] == bench.variants()
    bench.fail(0.01, reason)
    assert (1, True) == (len(bench.running), bench.variants() != ["large"])
    bench.complete(0.02)
    ((_, outcome, _, variant),) = bench.ends()
    assert (Outcome.SERVED, True, True) == (outcome, variant in ("small", "middle"), bench.records[0].retried)


def test_rows_of_one_request_stand_alone_after_a_fault() -> None:
    """If one of them is what breaks variants, it breaks nobody else's answer."""
    bench = Bench()
    bench.submit(9)
    for number in (1, 2, 3):
        bench.submit(number, rows=number)
    bench.complete(0.01)
    assert [[1, 2, 2, 3, 3, 3]] == [[item.request_id for item in dispatch.items] for dispatch in bench.running]
    bench.fail(0.02)
    batches = []
    while bench.running:
        batches.append([item.request_id for item in bench.running[0].items])
        bench.complete(0.03)
    assert [[1], [2, 2], [3, 3, 3]] == sorted(batches)


def test_a_row_is_tried_again_once() -> None:
    """A second variant that breaks under it is the end of it, and of nobody else's."""
    bench = Bench()
    bench.submit(1)
    bench.fail(0.01, Reason.CRASHED)
    bench.fail(0.02, Reason.WRONG_OUTPUT)
    assert [(1, Outcome.FAILED, Reason.WRONG_OUTPUT, "")] == bench.ends()
    assert ["small"] == [FAMILY.variants[v].name for v in bench.scheduler.families["f"].ladder]


def test_both_variants_are_probed_at_once_where_one_request_broke_them() -> None:
    """Their probes answer, so it was the request: both are as if nothing had been."""
    bench = Bench()
    bench.submit(1)
    bench.fail(0.01, Reason.CRASHED)
    poll = bench.fail(0.02, Reason.CRASHED)
    assert ["large", "middle"] == [spell.variant for spell in poll.probes]
    for spell in poll.probes:
        bench.scheduler.probed(spell, None, 0.03)
    bench.submit(2, 0.03)
    assert ["large"] == bench.variants()
    bench.fail(0.04, Reason.CRASHED)
    assert [1] == [spell.strikes for spell in bench.scheduler.quarantined("f").values()]


def test_without_time_for_another_variant_the_request_fails_with_the_reason() -> None:
    """It wants to be shed where it is late; who wants an answer all the same gets one."""
    bench = Bench(slots=2)
    bench.submit(1, slo_s=0.02)
    bench.submit(2, slo_s=0.02, when_late=WhenLate.SERVE)
    bench.fail(0.0195, Reason.HUNG)
    assert [(1, Outcome.FAILED, Reason.HUNG, "")] == bench.ends()
    bench.fail(0.0195, Reason.HUNG)
    bench.complete(0.03)
    assert (2, Outcome.SERVED_LATE) == bench.ends()[1][:2]


def test_a_row_that_waits_in_vain_after_a_fault_fails_with_the_reason_of_that() -> None:
    """It is late because a variant broke, and not because it asked for too much."""
    bench = Bench()
    bench.submit(1, slo_s=0.05)
    bench.scheduler.lose(0, Reason.CRASHED, 0.02)
    bench.poll(0.02)
    bench.poll(0.05)
    assert [(1, Outcome.FAILED, Reason.CRASHED, "")] == bench.ends()


def test_a_pinned_request_fails_and_the_next_one_is_refused_until_the_probe() -> None:
    """Nobody else may answer for the variant that was named; callers are told when to come back."""
    bench = Bench()
    bench.submit(1, pinned="large")
    bench.submit(2, pinned="large")
    bench.fail(0.5, Reason.CRASHED)
    bench.submit(3, 0.7, pinned="large")
    assert [
        (1, Outcome.FAILED, Reason.CRASHED, ""),
        (2, Outcome.REJECTED_INFEASIBLE, Reason.QUARANTINED, ""),
        (3, Outcome.REJECTED_INFEASIBLE, Reason.QUARANTINED, ""),
    ] == sorted(bench.ends())
    assert bench.records[-1].retry_after_s == pytest.approx(0.8)


def test_a_floor_that_only_broken_variants_reach_is_refused() -> None:
    """And one that others reach is not."""
    bench = Bench()
    bench.submit(1, pinned="large")
    bench.fail(0.01)
    bench.submit(2, 0.01, min_quality=0.85)
    assert (2, Outcome.REJECTED_INFEASIBLE, Reason.QUARANTINED, "") == bench.ends()[-1]
    bench.submit(3, 0.01, min_quality=0.75)
    assert ["middle"] == bench.variants()


def test_a_family_of_which_all_variants_broke_refuses_and_comes_back_with_the_first_probe() -> None:
    """Its rows that waited are refused as well."""
    bench = Bench(replace(FAMILY, variants=FAMILY.variants[:1], loaded=None))
    bench.submit(1)
    bench.submit(2)
    bench.fail(0.01, Reason.OUT_OF_MEMORY)
    assert [
        (1, Outcome.FAILED, Reason.OUT_OF_MEMORY, ""),
        (2, Outcome.REJECTED_INFEASIBLE, Reason.QUARANTINED, ""),
    ] == sorted(bench.ends())
    (spell,) = bench.poll(1.01).probes
    bench.scheduler.probed(spell, None, 1.1)
    bench.submit(3, 1.1)
    assert ["small"] == bench.variants()


def test_what_runs_on_a_variant_that_breaks_elsewhere_does_not_answer() -> None:
    """The other batch of `large` ends well and is tried again all the same; it is no second strike."""
    bench = Bench(slots=2)
    bench.submit(1)
    bench.submit(2)
    assert ["large", "large"] == bench.variants()
    bench.fail(0.01)
    doomed = bench.running.pop(0)
    assert bench.scheduler.complete(doomed.batch_id, 0.011) is None
    poll = bench.poll(0.011)
    assert [(Reason.QUARANTINED, True)] == [(batch.fault, batch.failed) for batch in poll.batches]
    assert ["middle", "middle"] == bench.variants()
    assert 1 == bench.scheduler.quarantined("f")["large"].strikes
    for _ in range(2):
        bench.complete(0.02)
    assert {(1, True), (2, False)} == {(record.request_id, record.retried) for record in bench.records}


def test_a_lost_executor_blames_the_batch_that_ran_and_no_other() -> None:
    """The one that was to come next waits again, and its variant is not in quarantine."""
    limits = Limits(100, ahead=0.99)
    scheduler = Scheduler([FAMILY], [Slot(0)], policy_named("fastest"), limits, {"f": 1.0})
    scheduler.submit(Request(1, "f", (0,), 0.0, 1.0, pinned="large"), 0.0)
    scheduler.poll(0.0)
    scheduler.submit(Request(2, "f", (0,), 0.009, 1.0), 0.009)
    assert [(True, "small")] == [(dispatch.ahead, dispatch.variant) for dispatch in scheduler.poll(0.009).dispatches]
    scheduler.lose(0, Reason.CRASHED, 0.01)
    poll = scheduler.poll(0.01)
    assert ((), [(1, Reason.CRASHED)]) == (poll.dispatches, [(r.request_id, r.reason) for r in poll.records])
    assert ({"large"}, 1) == (set(scheduler.quarantined("f")), scheduler.lost_slots)
    scheduler.restore(0, 0.02)
    (again,) = scheduler.poll(0.02).dispatches
    assert ("small", [2]) == (again.variant, [item.request_id for item in again.items])
    scheduler.complete(again.batch_id, 0.03)
    assert [False] == [record.retried for record in scheduler.poll(0.03).records], "no variant broke under it"


def test_a_batch_that_hangs_is_given_up_with_its_slot() -> None:
    """Its rows go elsewhere, and the driver is told which slot to look after."""
    bench = Bench(slots=2)
    bench.submit(1, slo_s=5.0)
    bench.poll(1.1)
    poll = bench.poll(1.4)
    assert ([0], 1) == ([dispatch.slot for dispatch in poll.hung], bench.scheduler.lost_slots)
    assert ["large", "middle"] == bench.variants()
    bench.running.pop(0)
    bench.complete(1.5)
    assert [(1, Outcome.SERVED, "middle")] == [(r.request_id, r.outcome, r.variant) for r in bench.records]


def test_what_waits_again_is_bounded_by_the_backlog() -> None:
    """Where it is full, rows of a broken batch fail."""
    bench = Bench(rows=2)
    bench.submit(1)
    bench.submit(2)
    bench.submit(3)
    bench.fail(0.01)
    assert [(1, Outcome.FAILED, Reason.EXECUTOR_ERROR, "")] == bench.ends()


def test_what_is_in_quarantine_stays_there_when_other_variants_are_loaded_or_believed() -> None:
    """A change of what is loaded is another matter; another revision begins anew."""
    bench = Bench()
    bench.submit(1, pinned="large")
    bench.fail(0.01, Reason.CRASHED)
    scheduler = bench.scheduler
    scheduler.replace(scheduler.prepare(FAMILY.with_loaded((0, 2))), 0.02)
    assert ((0,), (2,)) == (scheduler.families["f"].ladder, scheduler.families["f"].quarantined)
    scheduler.replace(scheduler.prepare(replace(FAMILY, revision="2")), 0.03)
    assert ((0, 1, 2), {}) == (scheduler.families["f"].ladder, scheduler.quarantined("f"))


def test_what_is_not_in_memory_needs_no_probe() -> None:
    """It is tried when it is loaded."""
    bench = Bench()
    bench.submit(1, pinned="large")
    bench.fail(0.01, Reason.CRASHED)
    scheduler = bench.scheduler
    scheduler.replace(scheduler.prepare(FAMILY.with_loaded((0,))), 0.02)
    assert ((), {}) == (bench.poll(2.0).probes, scheduler.quarantined("f"))


def test_with_a_variant_to_load_a_broken_one_is_not_waited_for() -> None:
    """Rows wait for what is sound and not loaded, and are refused where nothing is."""
    bench = Bench(FAMILY.with_loaded((0,)))
    bench.submit(1)
    bench.fail(0.01, Reason.CRASHED)
    assert [1] == [missing.variant for missing in bench.scheduler.cold()["f"].missing]
    bench.submit(2, 0.01, pinned="small")
    assert [(2, Outcome.REJECTED_INFEASIBLE, Reason.QUARANTINED, "")] == bench.ends()


def test_a_worker_may_begin_with_what_an_earlier_one_knew() -> None:
    """Nobody is answered by what ended it, until that is probed."""
    bench = Bench()
    bench.scheduler.strike("f", "large", Reason.CRASHED, 3, 0.0)
    bench.submit(1)
    assert (["middle"], [3]) == (
        bench.variants(),
        [spell.strikes for spell in bench.scheduler.quarantined("f").values()],
    )
