"""Where requests come from: the ids they go by, and the traces that they belong to (W3C Trace Context).

Whether a request is traced is the caller's to say where it belongs to a trace already, so that a trace is whole or is
not there; of the others a share is drawn by their ids, so that a retry is traced again, on whichever replica.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from secrets import token_hex

from router.request import Origin
from router.sampling import fraction
from service.exchange import RawHeaders
from service.oip.errors import ProtocolError
from service.oip.headers import ID_HEADER, NO_HEADERS, SAMPLED, RequestHeaders, read_headers
from service.settings import Settings

PURPOSE = "observe"
"""Of the draw; one for traces and access log, so that of equal shares the same requests have both."""


class Origins:
    """Names requests and draws those to be traced; `settings` are those of the replica at the time."""

    def __init__(self, settings: Callable[[], Settings]) -> None:
        self._settings = settings
        self._prefix = token_hex(6)
        self._count = itertools.count(1)

    def of(self, headers: RequestHeaders, path: str) -> Origin:
        """The origin of a request with these headers."""
        name = headers.request_id or f"{self._prefix}-{next(self._count):x}"
        settings = self._settings()
        traces = settings.traces_endpoint is not None
        caller = headers.traceparent
        drawn = settings.access_log_share or (settings.traces_share and caller is None)
        draw = fraction(name, PURPOSE) if drawn else 1.0
        if caller is not None:
            _, trace, parent, flags = caller.split("-")
            span = token_hex(8) if traces and int(flags, 16) & SAMPLED else ""
            return Origin(name, path, trace, span, parent, draw)
        if traces and draw < settings.traces_share:
            return Origin(name, path, token_hex(16), token_hex(8), draw=draw)
        return Origin(name, path, draw=draw)

    def ids_of(self, raw: Iterable[tuple[bytes, bytes]], path: str) -> RawHeaders:
        """What the refusal of a request says of it whose headers cannot all be read: see `echoes`."""
        try:
            headers = read_headers(header for header in raw if header[0] == ID_HEADER)
        except ProtocolError:
            headers = NO_HEADERS
        return echoes(self.of(headers, path), headers)


def echoes(origin: Origin, headers: RequestHeaders) -> RawHeaders:
    """What every answer to a request says of it: its id, and its trace, with the gateway's span where there is one."""
    echoed = [(ID_HEADER, origin.name.encode())]
    if origin.span:
        echoed.append((b"traceparent", f"00-{origin.trace}-{origin.span}-01".encode()))
    elif headers.traceparent:
        echoed.append((b"traceparent", headers.traceparent.encode()))
    return echoed
