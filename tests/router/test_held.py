"""Variants in quarantine: who is refused meanwhile, and what becomes of them when other things change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from router.request import NEVER
from router.words import Outcome, Reason
from tests.router.bench import FAMILY, Bench


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
    bench.fail(0.01, Reason.CRASHED)
    bench.submit(2, 0.01, min_quality=0.85)
    assert (2, Outcome.REJECTED_INFEASIBLE, Reason.QUARANTINED, "") == bench.ends()[-1]
    bench.submit(3, 0.01, min_quality=0.75)
    assert ["middle"] == bench.variants()


def test_a_family_of_which_all_variants_broke_refuses_and_comes_back_with_the_first_probe() -> None:
    """Its rows that waited are refused as well."""
    bench = Bench(replace(FAMILY, variants=FAMILY.variants[:1], loaded=None))
    bench.submit(1)
    bench.submit(2)
    bench.fail(0.01, Reason.CRASHED)
    assert [
        (1, Outcome.FAILED, Reason.CRASHED, ""),
        (2, Outcome.REJECTED_INFEASIBLE, Reason.QUARANTINED, ""),
    ] == sorted(bench.ends())
    (spell,) = bench.poll(1.01).probes
    bench.scheduler.probed(spell, None, 1.1)
    bench.submit(3, 1.1)
    assert ["small"] == bench.variants()


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


@pytest.mark.parametrize("certain", [False, True])
def test_the_last_variant_is_not_held_for_long_by_what_may_be_another_doing(certain: bool) -> None:
    """All ran when an earlier process ended; the others' spells are as long as they are to be."""
    bench = Bench()
    for variant in ("large", "middle", "small"):
        bench.scheduler.strike("f", variant, Reason.CRASHED, 9, 0.0, certain=certain)
    strikes = [spell.strikes for spell in bench.scheduler.quarantined("f").values()]
    assert sorted([9, 9, 9 if certain else 1]) == sorted(strikes)


def test_what_hangs_with_a_doubted_row_is_probed_in_the_same_poll() -> None:
    """A row on which a second variant hangs is doubted, so that one is probed at once: no wake-up for it is past."""
    bench = Bench()
    bench.submit(0, slo_s=NEVER)
    again = bench.fail(0.0, Reason.CRASHED)
    (retried,) = again.dispatches
    at_s = again.wake_at
    while not (poll := bench.poll(at_s)).hung:
        at_s = poll.wake_at
    assert [retried] == list(poll.hung)
    assert [("middle", 1)] == [(spell.variant, spell.strikes) for spell in poll.probes]
    assert poll.wake_at > at_s
