"""How far a plan is carried out before another one is made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest

from router.placement import Evict, Load, Spot, Step
from router.roster import Cold, Missing
from service.hopes import HOPES_S
from service.residency import Residency
from tests.service.test_appraisal import MB, Measured, Sized

A, B, C = (Spot(name, 0) for name in "abc")


def carried_out(
    steps: Sequence[Step], *, resident_bytes: int = 0, meanwhile: Callable[[Residency], None] = lambda _: None
) -> tuple[bool, list[Step]]:
    """Whether there may be more to do at once after a plan of these steps, and what was done of it.

    What happens `meanwhile` does so during each step.
    """
    families = [Sized(name, MB) for name in "abc"]
    pieces: Any = {family.name: family for family in families}
    done: list[Step] = []
    footprint = Measured(families)
    footprint.else_bytes = resident_bytes

    async def run() -> bool:
        residency = Residency(pieces, 100 * MB, (), 1, footprint)
        scheduler: Any = SimpleNamespace(cold=dict, busy=frozenset, cold_rows=0)
        residency.moves.scheduler = scheduler

        async def load(spot: Spot) -> None:
            meanwhile(residency)
            done.append(Load(spot))

        async def evict(name: str, variants: Sequence[str]) -> None:
            meanwhile(residency)
            assert ["only"] == list(variants)
            done.append(Evict(Spot(name, 0)))

        def plan(*_: object) -> tuple[Step, ...]:
            return tuple(steps)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(residency.appraisal, "plan", plan)
            patched.setattr(residency.moves, "load", load)
            patched.setattr(residency.moves, "evict", evict)
            more = await residency._step({})
        residency.stop()
        return more

    return asyncio.run(run()), done


def somebody_waits(residency: Residency) -> None:
    """For what is not in memory."""
    residency.moves.begun.cold_rows = 1  # type: ignore[misc]  # a stand-in's


def test_a_plan_without_a_load_is_the_last_one() -> None:
    """It is carried out; made anew it would be empty."""
    empty: list[Step] = []
    evictions: list[Step] = [Evict(A), Evict(B)]
    assert (False, []) == carried_out(empty)
    assert (False, []) == carried_out(empty, resident_bytes=101 * MB)
    assert (False, evictions) == carried_out(evictions)


def test_rows_that_wait_for_what_has_just_gone_are_planned_for_at_once() -> None:
    """They are not left waiting for the next look; where nothing can be done for somebody, nothing is planned again."""
    steps: list[Step] = [Evict(A)]
    assert (True, steps) == carried_out(steps, meanwhile=somebody_waits)
    assert (False, []) == carried_out([], meanwhile=somebody_waits)


def test_evictions_go_on_until_the_budget_holds() -> None:
    """Less was free after them than was believed."""
    steps: list[Step] = [Evict(A)]
    assert (True, steps) == carried_out(steps, resident_bytes=101 * MB)


def test_each_load_has_a_plan_of_its_own() -> None:
    """What it takes is known after it."""
    assert (True, [Evict(A), Load(B)]) == carried_out([Evict(A), Load(B), Evict(C)])


@pytest.mark.parametrize(
    ("waited_s", "is_hoped_for", "is_refused"),
    [(0.0, True, False), (0.0, False, True), (HOPES_S + 1.0, True, True)],
)
def test_who_waits_for_room_is_refused_after_a_while(waited_s: float, is_hoped_for: bool, is_refused: bool) -> None:
    """At once where there would be none even without what is taken for a moment; else it may be there soon."""
    told: list[object] = []

    def refuse(*_: object) -> None:
        raise AssertionError("it is only handed on")

    async def run() -> None:
        pieces: Any = {"a": Sized("a", MB)}
        residency = Residency(pieces, 100 * MB, (), 1, Measured([]))
        cold = {"a": Cold(1, monotonic() - waited_s, (Missing(0),))}
        scheduler: Any = SimpleNamespace(refuse_cold=refuse)
        residency.moves.begin(scheduler, told.append)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(residency.room, "can_load", lambda *_: False)
            patched.setattr(residency.room, "may_come_to_fit", lambda *_: is_hoped_for)
            residency._refuse_in_vain(cold, ())
        residency.stop()

    asyncio.run(run())
    assert is_refused == bool(told)


@pytest.mark.parametrize(
    ("steps", "lacks", "times"), [((), False, 1), ((Evict(A),), False, 2), ((), True, 2), ((Load(A),), False, 1)]
)
def test_what_is_free_goes_back_before_anybody_is_refused_or_goes(
    steps: tuple[Step, ...], lacks: bool, times: int
) -> None:
    """Then it is planned once more; once a second at most, as it takes milliseconds."""
    done: list[str] = []

    async def run() -> None:
        pieces: Any = {"a": Sized("a", MB)}
        residency = Residency(pieces, 100 * MB, (), 1, Measured([]))

        def plan(*_: object) -> tuple[Step, ...]:
            done.append("plan")
            return steps

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(residency.appraisal, "plan", plan)
            patched.setattr(residency.moves._footprint, "tidy", lambda: done.append("tidy"))
            patched.setattr(residency.room, "can_load", lambda *_: not lacks)
            cold = {"a": Cold(1, monotonic(), (Missing(0),))}
            assert steps == await residency._plan(cold, frozenset())
            assert ["plan", "tidy", "plan"][: 2 * times - 1] == done
            await residency._plan(cold, frozenset())
            assert done.count("tidy") == times - 1
        residency.stop()

    asyncio.run(run())
