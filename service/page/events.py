"""`GET /events?family=NAME`: server-sent events for the page (WHATWG HTML, "Server-sent events").

A tab gets one `welcome` and then a `tick` twice a second. A tick is made once for all tabs that look at one family, and
without tabs nothing is made at all. A tab that reads too slowly misses ticks, and nothing is kept for it.
"""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs

from service.exchange import Message, Receive, Scope, Send, read_body
from service.gateway import Gateway, Phase
from service.oip.errors import ProtocolError
from service.page.feed import Feed
from service.page.messages import encoded

TICK_S = 0.5
MOST_TABS = 64
LONGEST_NAME = 200

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    # Proxies of the nginx kind would collect the stream otherwise.
    (b"x-accel-buffering", b"no"),
]


class Events:
    """Answers the stream for all tabs. The stream ends when the replica drains: it would hold up its end."""

    def __init__(self, gateway: Gateway, feed: Feed) -> None:
        self._gateway = gateway
        self._feed = feed
        self._tabs = 0
        self._ticking: asyncio.Task[None] | None = None
        self._next: asyncio.Future[None] | None = None
        self._made: dict[str | None, bytes] = {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one tab until it is closed. Raises `ProtocolError` 503 where there are too many."""
        if scope["method"] == "HEAD":
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            await send({"type": "http.response.body", "body": b""})
            return
        if self._tabs >= MOST_TABS:
            raise ProtocolError(503, f"{MOST_TABS} pages are open already: close one", retry_after_s=5)
        await read_body(receive, 0, None)
        wanted = (parse_qs(scope["query_string"].decode("latin-1")).get("family") or [None])[0]
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        self._tabs += 1
        gone = asyncio.ensure_future(receive())
        try:
            await self._stream(wanted and wanted[:LONGEST_NAME], gone, send)
        finally:
            self._tabs -= 1
            gone.cancel()

    async def _stream(self, wanted: str | None, gone: asyncio.Future[Message], send: Send) -> None:
        told: tuple[object, ...] = ()
        family = None
        while not gone.done():
            edition = self._feed.edition()
            if edition != told:
                family, told = self._feed.chosen(wanted), edition
                content = encoded("welcome", self._feed.welcome(wanted))
            else:
                content = self._tick(family)
            last = self._gateway.phase is Phase.DRAINING
            await send({"type": "http.response.body", "body": content, "more_body": not last})
            if last:
                return
            await asyncio.wait((gone, self._due()), return_when=asyncio.FIRST_COMPLETED)

    def _tick(self, family: str | None) -> bytes:
        """The tick of this moment, made by the first tab that asks."""
        content = self._made.get(family)
        if content is None:
            content = self._made[family] = encoded("tick", self._feed.tick(family))
        return content

    def _due(self) -> asyncio.Future[None]:
        """Done at the next tick."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        if self._ticking is None:
            self._ticking = asyncio.create_task(self._beat())
        return self._next

    async def _beat(self) -> None:
        while self._tabs:
            await asyncio.sleep(TICK_S)
            self._made.clear()
            if self._next is not None:
                self._next.set_result(None)
                self._next = None
        self._ticking = None
