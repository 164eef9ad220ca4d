"""The page's stream against callers that come all at once, read nothing or look at the same thing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from service.exchange import Message, Scope
from service.gateway import Gateway, Phase
from service.oip.errors import ProtocolError
from service.page.events import Events
from service.page.feed import Feed
from service.settings import Settings

SCOPE: Scope = {"method": "GET", "query_string": b""}


class Caller:
    """One tab: sends its request, reads what `read` takes, and stays."""

    def __init__(self, read: Callable[[Message], Awaitable[None]] | None = None) -> None:
        self.got: list[bytes] = []
        self.told = asyncio.Event()
        self._read = read
        self._asked = False

    async def receive(self) -> Message:
        if not self._asked:
            self._asked = True
            # As with a server that has the request's body a moment later.
            await asyncio.sleep(0)
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            if self._read is not None:
                await self._read(message)
            self.got.append(message["body"])
            self.told.set()


def stream() -> tuple[Gateway, Feed, Events]:
    gateway = Gateway(Settings())
    feed = Feed(gateway)
    return gateway, feed, Events(gateway, feed)


def test_callers_that_come_at_once_are_all_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound holds though none of them has had an answer yet."""
    monkeypatch.setattr("service.page.events.MOST_TABS", 2)
    monkeypatch.setattr("service.page.events.TICK_S", 0.0)

    async def scenario() -> list[Any]:
        gateway, _, events = stream()
        callers = [Caller() for _ in range(5)]
        tabs = [asyncio.ensure_future(events.handle(SCOPE, one.receive, one.send)) for one in callers]
        await asyncio.gather(*(one.told.wait() for one in callers[:2]))
        gateway.phase = Phase.DRAINING
        ended = await asyncio.gather(*tabs, return_exceptions=True)
        assert 0 == events._tabs
        return ended

    ended = asyncio.run(scenario())
    assert [None, None] == ended[:2]
    assert [503] * 3 == [error.status for error in ended[2:] if isinstance(error, ProtocolError)]


def test_a_caller_that_stops_reading_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not hold one of the places for good."""
    monkeypatch.setattr("service.page.events.SEND_S", 0.0)

    async def never(_: Message) -> None:
        await asyncio.Event().wait()

    async def scenario() -> int:
        _, _, events = stream()
        caller = Caller(never)
        await events.handle(SCOPE, caller.receive, caller.send)
        return events._tabs

    assert 0 == asyncio.run(scenario())


def test_one_welcome_is_made_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tabs that begin with the same family at the same tick share its making; the next edition has its own."""
    made: list[str | None] = []
    real = Feed.welcome

    def welcome(feed: Feed, wanted: str | None) -> Message:
        made.append(wanted)
        return real(feed, wanted)

    monkeypatch.setattr(Feed, "welcome", welcome)

    async def scenario() -> list[Caller]:
        gateway, _, events = stream()
        callers = [Caller() for _ in range(4)]
        tabs = [asyncio.ensure_future(events.handle(SCOPE, one.receive, one.send)) for one in callers]
        await asyncio.gather(*(one.told.wait() for one in callers))
        assert [None] == made
        gateway.phase = Phase.DRAINING
        await asyncio.gather(*tabs)
        return callers

    callers = asyncio.run(scenario())
    assert [None] * 2 == made
    assert 1 == len({tuple(one.got) for one in callers})
    assert all(b"draining" in one.got[-1] for one in callers)
