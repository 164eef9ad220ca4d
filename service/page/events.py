"""`GET /events?family=NAME`: server-sent events for the page (WHATWG HTML, "Server-sent events").

A tab gets one `welcome` and then a `tick` twice a second. A tick is made once for all tabs that look at one family, and
without tabs nothing is made at all. A tab that reads too slowly misses ticks, and nothing is kept for it.
"""

from __future__ import annotations

import asyncio
import logging
from urllib.parse import parse_qs

from service.exchange import Message, Receive, Scope, Send, read_body
from service.gateway import Gateway, Phase
from service.oip.errors import ProtocolError
from service.page.feed import Feed
from service.page.messages import encoded

logger = logging.getLogger("pareto.page")

TICK_S = 0.5
MOST_TABS = 64
LONGEST_NAME = 200
SEND_S = 10.0
"""A tab that has read nothing for so long, with the socket's buffers full, has its stream ended."""

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    # Proxies of the nginx kind would collect the stream otherwise.
    (b"x-accel-buffering", b"no"),
]


class Events:
    """Answers the stream for all tabs. The stream ends when the replica drains, which it would hold up otherwise."""

    def __init__(self, gateway: Gateway, feed: Feed) -> None:
        self._gateway = gateway
        self._feed = feed
        self._tabs = 0
        self._ticking: asyncio.Task[None] | None = None
        self._next: asyncio.Future[None] | None = None
        self._made: dict[tuple[str | None, object], bytes] = {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one tab until it is closed. Raises `ProtocolError` 503 where there are too many."""
        if scope["method"] == "HEAD":
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            await send({"type": "http.response.body", "body": b""})
            return
        if self._tabs >= MOST_TABS:
            raise ProtocolError(503, f"{MOST_TABS} pages are open already: close one", retry_after_s=5)
        # Counted before the first pause, so that those who come at once are all counted.
        self._tabs += 1
        try:
            await read_body(receive, 0, None)
            wanted = (parse_qs(scope["query_string"].decode("latin-1")).get("family") or [None])[0]
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            gone = asyncio.ensure_future(receive())
            try:
                await self._stream(wanted and wanted[:LONGEST_NAME], gone, send)
            except TimeoutError:
                logger.info("a page that has read nothing for %g s is let go", SEND_S)
            finally:
                gone.cancel()
        finally:
            self._tabs -= 1

    async def _stream(self, wanted: str | None, gone: asyncio.Future[Message], send: Send) -> None:
        # With other keys, who is listening has to show one again.
        keys = self._gateway.access.keys
        told: tuple[object, ...] = ()
        family = None
        self._begin()
        while not gone.done():
            edition = self._feed.edition()
            if edition != told:
                family, told = self._feed.chosen(wanted), edition
                content = self._welcome(family, edition)
            else:
                content = self._tick(family)
            last = self._gateway.phase is Phase.DRAINING or self._gateway.access.keys is not keys
            async with asyncio.timeout(SEND_S):
                await send({"type": "http.response.body", "body": content, "more_body": not last})
            if last:
                return
            await asyncio.wait((gone, self._due()), return_when=asyncio.FIRST_COMPLETED)

    def _welcome(self, family: str | None, edition: object) -> bytes:
        """The welcome of this moment, made by the first tab that asks: with a new edition all tabs do."""
        content = self._made.get((family, edition))
        if content is None:
            content = self._made[family, edition] = encoded("welcome", self._feed.welcome(family))
        return content

    def _tick(self, family: str | None) -> bytes:
        """The tick of this moment, likewise."""
        content = self._made.get((family, None))
        if content is None:
            content = self._made[family, None] = encoded("tick", self._feed.tick(family))
        return content

    def _due(self) -> asyncio.Future[None]:
        """Done at the next tick."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        return self._next

    def _begin(self) -> None:
        """Have what is made forgotten at each tick from now on, while there are tabs."""
        if self._ticking is None:
            self._ticking = asyncio.create_task(self._beat())

    async def _beat(self) -> None:
        while self._tabs:
            await asyncio.sleep(TICK_S)
            self._made.clear()
            if self._next is not None:
                self._next.set_result(None)
                self._next = None
        self._ticking = None
