"""Head and body of an answer go out in one write, whatever else happens on the connection."""

from __future__ import annotations

import asyncio
from typing import Any

from service.exchange import Message, send_whole


class Transport:
    """Keeps what is written, and when it was closed."""

    def __init__(self) -> None:
        self.events: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.events.append(data)

    def close(self) -> None:
        self.events.append("closed")

    def is_closing(self) -> bool:
        return "closed" in self.events


class Cycle:
    """A request cycle as uvicorn has it: writes the head, then the body, then may close."""

    def __init__(self, *, keep_alive: bool = True, with_body: bool = True) -> None:
        self.transport: Any = Transport()
        self.keep_alive = keep_alive
        self.with_body = with_body

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.transport.write(b"head;")
            return
        if self.with_body:
            self.transport.write(message["body"])
        if not self.keep_alive and not self.transport.is_closing():
            self.transport.close()


def events(cycle: Cycle) -> list[bytes | str]:
    real = cycle.transport
    asyncio.run(send_whole(cycle.send, 200, b"body"))
    assert cycle.transport is real
    return list(real.events)


def test_head_and_body_are_one_write() -> None:
    """The caller wakes once."""
    assert events(Cycle()) == [b"head;body"]


def test_nothing_is_lost_before_a_close() -> None:
    """A connection that is not kept alive is closed behind the answer, also behind one without a body."""
    assert events(Cycle(keep_alive=False)) == [b"head;body", "closed"]
    assert events(Cycle(keep_alive=False, with_body=False)) == [b"head;", "closed"]


def test_an_answer_without_a_body_is_written() -> None:
    """As to HEAD."""
    assert events(Cycle(with_body=False)) == [b"head;"]


def test_any_other_server_writes_as_it_likes() -> None:
    """A `send` that is a plain function gets the two messages."""
    sent: list[str] = []

    async def send(message: Message) -> None:
        sent.append(message["type"])

    asyncio.run(send_whole(send, 200, b"body"))
    assert sent == ["http.response.start", "http.response.body"]
