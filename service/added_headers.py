"""Headers on answers that somebody else writes: what BentoML makes of an exception has a status and a message alone."""

from __future__ import annotations

from contextvars import ContextVar

from service.exchange import Message, RawHeaders, Send

_added: ContextVar[RawHeaders | None] = ContextVar("added_headers", default=None)


def add(headers: RawHeaders) -> None:
    """Send these with the answer to the request that is being answered; nothing where nobody asked for them."""
    added = _added.get()
    if added is not None:
        added.extend(headers)


def adding(send: Send) -> Send:
    """`send`, with what is added from now on in this context, and in tasks that are begun in it."""
    added: RawHeaders = []
    _added.set(added)

    async def send_with(message: Message) -> None:
        if message["type"] == "http.response.start" and added:
            message = {**message, "headers": [*message.get("headers", ()), *added]}
        await send(message)

    return send_with
