"""Reading the one message of a call, within the memory that there is for bodies.

A handler that takes one message would get it whole, however many do at a time. So every method here is one that takes a
stream, whose handler reads when it may; callers do not see the difference.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from service.exchange import BODY_TIMEOUT_S, REQUEST_TIMEOUT
from service.inflight import InflightBytes
from service.oip.errors import ProtocolError, malformed
from service.rpc.calls import Context

SMALL_BYTES = 64 * 1024
"""The most in a message that has no tensors."""

AnyMessage = TypeVar("AnyMessage", bound=Message)


class MessageReader:
    """Reads messages of up to `limit_bytes`.

    No message says how long it is before it is there: each may be as long as any, and takes that much of the memory for
    bodies while it comes. Half of it, so that what has come, and HTTP, find room; the others wait.
    """

    def __init__(self, inflight: InflightBytes, limit_bytes: int) -> None:
        self._inflight = inflight
        self._limit_bytes = limit_bytes
        self._turns = asyncio.Semaphore(max(1, inflight.limit_bytes // limit_bytes // 2))

    async def read(self, context: Context) -> bytes:
        """The message, serialized. Raises `ProtocolError` 400 for none, 408 where it does not come, 503 for no room."""
        inflight = self._inflight
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S), self._turns:
                held_bytes = inflight.hold(self._limit_bytes)
                try:
                    message: Any = await context.read()
                finally:
                    inflight.release(held_bytes)
        except TimeoutError:
            late = f"the message did not arrive within {BODY_TIMEOUT_S:g} s"
            raise ProtocolError(REQUEST_TIMEOUT, late) from None
        if message is grpc.aio.EOF:
            raise malformed("message", "one", "none")
        assert isinstance(message, bytes), "no deserializer is registered"
        return message

    async def read_small(self, kind: type[AnyMessage], context: Context) -> AnyMessage:
        """A message that has no tensors. Raises also `ProtocolError` 413 for one that is too long."""
        message = await self.read(context)
        check_small(message)
        return parse(kind, message)


def check_small(message: bytes) -> None:
    """Raise `ProtocolError` 413 for a message that is too long to have no tensors."""
    if len(message) > SMALL_BYTES:
        raise ProtocolError(413, f"message: expected at most {SMALL_BYTES} bytes, got {len(message)}")


def parse(kind: type[AnyMessage], message: bytes) -> AnyMessage:
    """The message in these bytes. Raises `ProtocolError` 400."""
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise malformed("message", f"a {kind.__name__}", str(error)[:100]) from None
