"""Turns: so many at a time, a part of them by one connection, and none lost whoever leaves."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.oip.errors import ProtocolError
from service.rpc.turns import Turns
from tests.rpc.test_reading import settled


async def _of_one() -> list[str]:
    turns, order = Turns(4, 2), list[str]()

    async def take(connection: str) -> None:
        await turns.take(connection)
        order.append(connection)

    waiting = [asyncio.create_task(take(connection)) for connection in ["a"] * 5 + ["b"] * 2 + ["c"] * 2]
    await settled()
    assert order == ["a", "a", "b", "b"]
    for connection in ("a", "b", "a"):
        turns.give_back(connection)
        await settled()
    for task in waiting:
        task.cancel()
    return order[4:]


def test_connections_that_wait_take_turns() -> None:
    """One with many calls has its part and no more, however early it came."""
    assert asyncio.run(_of_one()) == ["a", "c", "a"]


async def _none_comes(monkeypatch: pytest.MonkeyPatch) -> tuple[int, str | None]:
    monkeypatch.setattr("service.rpc.turns.TURN_S", 0.01)
    turns = Turns(1, 1)
    await turns.take("a")
    with pytest.raises(ProtocolError) as caught:
        await turns.take("b")
    turns.give_back("a")
    await turns.take("b")
    return caught.value.status, caught.value.reason


def test_who_has_no_turn_is_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is another refusal than that of a message that does not come; and the next one has the turn."""
    assert asyncio.run(_none_comes(monkeypatch)) == (503, "backlog_full")


async def _many_leave(callers: int) -> bool:
    turns = Turns(1, 1)
    await turns.take("a")
    waiting = [asyncio.create_task(turns.take(f"b{caller % 20}")) for caller in range(callers)]
    await settled()
    for task in waiting:
        task.cancel()
    turns.give_back("a")
    await settled()
    await turns.take("a")
    return all(task.cancelled() for task in waiting)


def test_any_number_may_leave_at_once() -> None:
    """Also while the turn that they waited for is given back: nobody else pays for it."""
    assert asyncio.run(_many_leave(2000))


async def _any_order(most: int, of_one: int, steps: list[tuple[str, int]]) -> None:
    turns, taken, chance = Turns(most, of_one), list[str](), random.Random(0)
    waiting: list[asyncio.Task[None]] = []

    async def take(connection: str) -> None:
        await turns.take(connection)
        taken.append(connection)
        assert len(taken) <= most
        assert taken.count(connection) <= of_one

    for connection, step in steps:
        if step == 0:
            waiting.append(asyncio.create_task(take(connection)))
        elif step == 1 and taken:
            turns.give_back(taken.pop(chance.randrange(len(taken))))
        elif waiting:
            waiting.pop(chance.randrange(len(waiting))).cancel()
        if step != 2:
            await asyncio.sleep(0)
    await settled()
    while taken:
        turns.give_back(taken.pop())
        await settled()
    assert (turns._free, turns._taken, dict(turns._waiting)) == (most, {}, {})


@settings(max_examples=50)
@given(
    st.integers(1, 4), st.integers(1, 4), st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), max_size=40)
)
def test_no_turn_is_lost(most: int, of_one: int, steps: list[tuple[str, int]]) -> None:
    """Whoever takes, gives back or is cancelled, and when: nobody has too many, and all are free in the end."""
    asyncio.run(_any_order(most, of_one, steps))
