"""One HTTP exchange over raw ASGI: reading a bounded body, sending a whole answer."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Generator, Iterable, MutableMapping
from math import ceil
from typing import Any

from service.access import CHALLENGE, UNAUTHORIZED
from service.oip.errors import ProtocolError, body

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
RawHeaders = list[tuple[bytes, bytes]]

REQUEST_TIMEOUT = 408
SMALL_BYTES = 64 * 1024
"""Up to here a body is decoded at once, a larger one by a thread; one without tensors is not larger."""
JSON = b"application/json"
BODY_TIMEOUT_S = 15.0
"""A caller that trickles its body, or never begins, is given up after this long."""


class ClientGone(Exception):  # noqa: N818 - it is how a request may end, not an error of ours
    """The caller hung up before its request was whole."""


async def read_body(receive: Receive, limit_bytes: int, declared_bytes: int | None) -> bytes:
    """The request's body.

    Raises `ProtocolError` 413 over the limit, before reading where the length is declared, and 408 where the body
    does not come; `ClientGone` where the caller hangs up.
    """
    if declared_bytes is not None and declared_bytes > limit_bytes:
        raise too_large(declared_bytes, limit_bytes)
    awaiting = receive().__await__()
    try:
        waits_for = next(awaiting)
    except StopIteration as at_once:
        # Most bodies are there already: setting and cancelling a timer would cost them some 4 us.
        message: Message = at_once.value
        if message["type"] == "http.request" and not message.get("more_body", False):
            only: bytes = message.get("body", b"")
            if len(only) > limit_bytes:
                raise too_large(len(only), limit_bytes) from None
            return only
        first = _known(message)
    else:
        first = _resumed(waits_for, awaiting)
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await _read_rest(first, receive, limit_bytes)
    except TimeoutError:
        raise ProtocolError(REQUEST_TIMEOUT, f"the body did not arrive within {BODY_TIMEOUT_S:g} s") from None


async def _read_rest(first: Awaitable[Message], receive: Receive, limit_bytes: int) -> bytes:
    collected = bytearray()
    message = await first
    while True:
        if message["type"] != "http.request":
            raise ClientGone
        collected += message.get("body", b"")
        if len(collected) > limit_bytes:
            raise too_large(len(collected), limit_bytes)
        if not message.get("more_body", False):
            return bytes(collected)
        message = await receive()


async def _known(message: Message) -> Message:
    return message


@types.coroutine
def _resumed(waits_for: Any, awaiting: Generator[Any, Any, Message]) -> Generator[Any, Any, Message]:
    """Go on with a call that has been stepped once and waits for something."""
    yield waits_for
    return (yield from awaiting)


def too_large(size_bytes: int, limit_bytes: int) -> ProtocolError:
    """The refusal of a body over the limit."""
    return ProtocolError(413, f"body: expected at most {limit_bytes} bytes, got {size_bytes} or more")


class OneWrite:
    """Stands in for a transport until head and body of an answer are there, and writes them at once."""

    __slots__ = ("_head", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        """Keep the first bytes; write them with the second ones, and later ones as they come."""
        if self._head is None:
            self._head = data
        else:
            self._transport.write(self._head + data)
            self._head = b""

    def writelines(self, parts: Iterable[bytes]) -> None:
        """As `write` of all parts."""
        self.write(b"".join(parts))

    def flush(self) -> None:
        """Write what is kept: an answer without a body."""
        if self._head:
            self._transport.write(self._head)
            self._head = b""

    def close(self) -> None:
        """Close the connection behind what was written."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


async def send_whole(
    send: Send, status: int, content: bytes, content_type: bytes = JSON, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Send an answer in one piece.

    An ASGI server that is uvicorn would write the head of an answer and then its body, and a write wakes the caller and
    runs through the kernel's network stack: some 40 us each. `send` is a method of its request cycle, which writes to
    `transport`, so that both can be written together; where it is not, all is as ever.
    """
    head = {
        "type": "http.response.start",
        "status": status,
        "headers": [(b"content-type", content_type), (b"content-length", b"%d" % len(content)), *headers],
    }
    cycle = getattr(send, "__self__", None)
    transport = getattr(cycle, "transport", None)
    if cycle is None or transport is None:
        await send(head)
        await send({"type": "http.response.body", "body": content})
        return
    joined = cycle.transport = OneWrite(transport)
    try:
        await send(head)
        await send({"type": "http.response.body", "body": content})
    finally:
        joined.flush()
        cycle.transport = transport


def closing(send: Send) -> Send:
    """`send` for an answer that is the last one on its connection.

    A replica that ends closes its connections; a request that somebody sends on one just then would be lost.
    """

    async def send_last(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        await send(message)

    return send_last


def refusal_headers(error: ProtocolError) -> RawHeaders:
    """Why a request was dropped, and when to come back, in whole seconds; nothing for one that was wrong."""
    said: RawHeaders = []
    if error.reason:
        said.append((b"x-request-dropped-reason", error.reason.encode()))
    if error.retry_after_s is not None:
        said.append((b"retry-after", b"%d" % max(1, ceil(error.retry_after_s))))
    return said


async def send_error(send: Send, error: ProtocolError, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Send a refusal: `{"error": ...}`, why in `x-request-dropped-reason`, and when to come back."""
    extra = [*headers, *refusal_headers(error)]
    if error.status == UNAUTHORIZED:
        extra.append((b"www-authenticate", CHALLENGE))
    if error.status == REQUEST_TIMEOUT:
        extra.append((b"connection", b"close"))
    await send_whole(send, error.status, body(error.message), headers=extra)
