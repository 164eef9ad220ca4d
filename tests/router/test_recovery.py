"""A variant breaks: its rows go to another one where there is time, each once."""

from __future__ import annotations

import pytest

from router.contract import Slot
from router.limits import Limits
from router.policies import policy_named
from router.quarantine import FAULTS, HARD
from router.request import NEVER, Request
from router.scheduler import Scheduler
from router.words import Outcome, Reason, WhenLate
from tests.router.bench import FAMILY, Bench


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


@pytest.mark.parametrize("reason", sorted(FAULTS))
def test_a_row_is_tried_again_once(reason: Reason) -> None:
    """A second variant that breaks under it is the end of it, and of nobody else's."""
    bench = Bench()
    bench.submit(1)
    bench.fail(0.01, reason)
    assert ["middle"] == bench.variants()
    bench.fail(0.02, Reason.WRONG_OUTPUT)
    assert [(1, Outcome.FAILED, Reason.WRONG_OUTPUT, "")] == bench.ends()
    held = () if reason not in HARD else (2,)
    assert held == bench.scheduler.families["f"].quarantined


@pytest.mark.parametrize("policy", ["casc", "fluid", "most-accurate", "slackfit", "ramsis", "fixed:large"])
def test_what_an_exception_may_be_the_request_of_goes_on_answering_others(policy: str) -> None:
    """Its row does not meet that variant again, though it waits until other variants are loaded; others do."""
    bench = Bench(policy=policy)
    bench.submit(1, slo_s=1.0)
    bench.submit(2, slo_s=0.9)
    poll = bench.fail(0.01)
    assert ["large"] == [spell.variant for spell in poll.probes]
    scheduler = bench.scheduler
    scheduler.replace(scheduler.prepare(FAMILY.with_loaded((0, 2))), 0.011)
    for _ in range(2):
        bench.complete(0.02)
    variants = {record.request_id: (record.variant, record.reason) for record in bench.records}
    assert ("small", Reason.RETRIED) == variants[1] or policy != "most-accurate"
    assert variants[1][0] != "large"
    assert {} == scheduler.quarantined("f")


def test_a_flood_of_requests_that_break_a_variant_costs_one_probe_a_second() -> None:
    """Nothing is swapped, and what runs meanwhile answers."""
    bench, probes = Bench(slots=2), 0
    for number in range(200):
        now = number * 0.02
        bench.submit(number, now)
        bench.fail(now + 0.005)
        probes += len(bench.probes)
        while bench.probes:
            bench.scheduler.probed(bench.probes.pop(), None, now + 0.006)
        bench.complete(now + 0.01)
    assert ({Outcome.SERVED}, 4) == ({record.outcome for record in bench.records}, probes)


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


def test_what_runs_on_a_variant_that_breaks_elsewhere_does_not_answer() -> None:
    """The other batch of `large` ends well and is tried again all the same; it is no second strike."""
    bench = Bench(slots=2)
    bench.submit(1)
    bench.submit(2)
    assert ["large", "large"] == bench.variants()
    bench.fail(0.01, Reason.CRASHED)
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


def test_a_row_whose_other_variant_has_to_be_loaded_goes_on_once_it_is() -> None:
    """The variant on suspicion answers others meanwhile; the row waits for the load, and then for nothing else."""
    bench = Bench(FAMILY.with_loaded((2,)))
    bench.submit(1, slo_s=NEVER)
    assert () == bench.fail(0.01).dispatches
    assert 1 == bench.scheduler.cold_rows
    bench.scheduler.replace(bench.scheduler.prepare(FAMILY.with_loaded((0, 2))), 0.02)
    assert ["small"] == [dispatch.variant for dispatch in bench.poll(0.02).dispatches]
    bench.complete(0.03)
    assert [(1, Outcome.SERVED, "small")] == [(number, outcome, by) for number, outcome, _, by in bench.ends()]
