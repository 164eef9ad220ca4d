"""Reading bodies: at once where they are there, with patience that ends where they are not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from service import exchange
from service.exchange import ClientGone, Message, read_body
from service.oip.errors import ProtocolError


class Caller:
    """An ASGI channel that gives these messages, after a round of the event loop if `late`, and then nothing."""

    def __init__(self, messages: Sequence[Message], late: bool) -> None:
        self._messages = list(messages)
        self._late = late

    async def receive(self) -> Message:
        """The next message."""
        if self._late:
            await asyncio.sleep(0)
        if not self._messages:
            await asyncio.Event().wait()
        return self._messages.pop(0)


def part(body: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def read(messages: Sequence[Message], late: bool, limit_bytes: int = 10, declared: int | None = None) -> bytes:
    return asyncio.run(read_body(Caller(messages, late).receive, limit_bytes, declared))


@pytest.mark.parametrize("late", [False, True])
def test_a_body_is_joined_from_its_parts(late: bool) -> None:
    """One part or several, there at once or not."""
    assert read([part(b"whole")], late) == b"whole"
    assert read([part(b"in ", True), part(b"three", True), part(b"!")], late) == b"in three!"


@pytest.mark.parametrize("late", [False, True])
def test_a_body_over_the_limit_is_413(late: bool) -> None:
    """Declared, in one part, or in the sum of several."""
    for messages, declared in (([], 11), ([part(b"12345678901")], None), ([part(b"123456", True)] * 2, None)):
        with pytest.raises(ProtocolError) as raised:
            read(messages, late, declared=declared)
        assert raised.value.status == 413


@pytest.mark.parametrize("late", [False, True])
def test_a_caller_that_hangs_up_is_gone(late: bool) -> None:
    """Before the body, or in its middle."""
    for messages in ([{"type": "http.disconnect"}], [part(b"half", True), {"type": "http.disconnect"}]):
        with pytest.raises(ClientGone):
            read(messages, late)


@pytest.mark.parametrize("late", [False, True])
def test_a_caller_that_says_nothing_is_given_up(late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """No first part, or no second one: 408 either way."""
    monkeypatch.setattr(exchange, "BODY_TIMEOUT_S", 0.05)
    for messages in ([], [part(b"half", True)]):
        with pytest.raises(ProtocolError) as raised:
            read(messages, late)
        assert raised.value.status == 408
