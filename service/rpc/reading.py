"""Reading the messages of calls, within the memory that there is for bodies.

A handler that takes one message would get it whole, however many do at a time. So every method here is one that takes a
stream, whose handler reads when it may; callers do not see the difference.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from service.exchange import BODY_TIMEOUT_S, REQUEST_TIMEOUT, SMALL_BYTES
from service.inflight import InflightBytes
from service.oip.errors import ProtocolError, malformed
from service.rpc.calls import Context
from service.rpc.turns import Turns

SMALL_S = 2.0
"""For a message that has no tensors: it comes with the head of its call."""
ENDED_S = 0.1
"""A call that has ended is cancelled within this time."""

AnyMessage = TypeVar("AnyMessage", bound=Message)


class MessageReader:
    """Reads messages of up to `limit_bytes`.

    No message says how long it is before it is there: each may be as long as any. Those with tensors take so much of
    the memory for bodies while they come, half of it at most, so that what has come, and HTTP, find room. All others
    have turns of their own, so that a probe is answered whatever tensors are on their way: as much memory again.
    """

    def __init__(self, inflight: InflightBytes, limit_bytes: int) -> None:
        self._inflight = inflight
        self._limit_bytes = limit_bytes
        fit = inflight.limit_bytes // limit_bytes
        self._turns = Turns(max(1, fit // 2), max(1, fit // 4))
        self._small_turns = Turns(fit, max(1, fit // 8))

    async def read(self, context: Context) -> bytes:
        """The one message of a call, serialized.

        Raises `ProtocolError` 400 for none, 408 where it does not come, 503 where there is no room or no turn.
        """
        connection = context.peer()
        await self._turns.take(connection)
        try:
            held_bytes = self._inflight.hold(self._limit_bytes)
            try:
                message = await _next(context, BODY_TIMEOUT_S)
            finally:
                self._inflight.release(held_bytes)
        finally:
            self._turns.give_back(connection)
        return message if message is not None else await _none()

    async def read_small(self, kind: type[AnyMessage], context: Context) -> AnyMessage:
        """The one message of a call, without tensors. Raises also `ProtocolError` 413 for one that is too long."""
        message = await self.next_small(kind, context)
        return message if message is not None else await _none()

    async def next_small(self, kind: type[AnyMessage], context: Context) -> AnyMessage | None:
        """The next message of a call, without tensors; `None` where the caller has no more. Raises as `read_small`."""
        connection = context.peer()
        await self._small_turns.take(connection)
        try:
            message = await _next(context, SMALL_S)
        finally:
            self._small_turns.give_back(connection)
        if message is None:
            return None
        if len(message) > SMALL_BYTES:
            raise ProtocolError(413, f"message: expected at most {SMALL_BYTES} bytes, got {len(message)}")
        return parse(kind, message)


async def _next(context: Context, limit_s: float) -> bytes | None:
    try:
        async with asyncio.timeout(limit_s):
            message: Any = await context.read()
    except TimeoutError:
        raise ProtocolError(REQUEST_TIMEOUT, f"the message did not arrive within {limit_s:g} s") from None
    if message is grpc.aio.EOF:
        return None
    assert isinstance(message, bytes), "no deserializer is registered"
    return message


async def _none() -> Any:
    """Raises what is wrong with a call that has no message, unless it has ended: that reads the same at first."""
    await asyncio.sleep(ENDED_S)
    raise malformed("message", "one", "none")


def parse(kind: type[AnyMessage], message: bytes) -> AnyMessage:
    """The message in these bytes. Raises `ProtocolError` 400."""
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise malformed("message", f"a {kind.__name__}", str(error)[:100]) from None
