"""Everything that the page asks for, by path."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs

from service.exchange import JSON, Receive, Scope, Send, send_whole
from service.gateway import Gateway
from service.oip.errors import ProtocolError
from service.page.events import Events
from service.page.feed import Feed
from service.page.files import page_files
from service.page.samples import Samples

PRIVATE = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""On what is not for everybody to keep or to take into a page of theirs."""
LARGEST_COMPARISON_BYTES = 4 * 1024 * 1024


class Pages:
    """Answers the paths of the page: its files, its events, samples to try, and a comparison where there is one."""

    def __init__(self, gateway: Gateway, feed: Feed) -> None:
        self._gateway = gateway
        self._files = page_files()
        self._events = Events(gateway, feed)
        self._samples = Samples(gateway)
        self.paths = frozenset((*self._files, "/events", "/page/samples", "/page/sample", "/page/comparison"))

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one of `paths`, asked for with GET or HEAD. Raises `ProtocolError` 404 and 503."""
        path = scope["path"]
        if (file := self._files.get(path)) is not None:
            await file.send(scope, send)
        elif path == "/events":
            await self._events.handle(scope, receive, send)
        elif path == "/page/comparison":
            await send_whole(send, 200, await asyncio.to_thread(self._comparison), JSON, PRIVATE)
        else:
            asked = {name: values[0] for name, values in parse_qs(scope["query_string"].decode("latin-1")).items()}
            family = asked.get("family", "")
            if path == "/page/samples":
                await send_whole(send, 200, await self._samples.listed(family), JSON, PRIVATE)
                return
            row = asked.get("row", "")
            if not (row.isascii() and row.isdigit() and len(row) < 10):
                raise ProtocolError(400, f"row: expected a whole number, got {row[:20]!r}")
            body, json_length = await self._samples.request(family, int(row))
            length = (b"inference-header-content-length", b"%d" % json_length)
            await send_whole(send, 200, body, b"application/octet-stream", (*PRIVATE, length))

    def _comparison(self) -> bytes:
        """The file that the settings name, `null` while it is not there. Raises `ProtocolError` 404 without one.

        A page asks every second: until the demo has begun that is no fault to be counted.
        """
        path = self._gateway.settings.comparison
        if path is None:
            raise ProtocolError(404, "there is no comparison to show")
        try:
            return path.read_bytes() if path.stat().st_size <= LARGEST_COMPARISON_BYTES else b"null"
        except OSError:
            return b"null"
