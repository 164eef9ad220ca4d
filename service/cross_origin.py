"""Pages of other sites in a browser: which of them may ask (CORS, WHATWG Fetch), answered before anything else is."""

from __future__ import annotations

from starlette.middleware.cors import CORSMiddleware

from service.exchange import AsgiApp, Receive, Scope, Send
from service.oip.headers import REQUEST_HEADERS

_MAX_AGE_S = 600
"""How long a browser need not ask again whether it may."""

_ASKED_WITH = ("authorization", "x-api-key", "content-type", *(name.decode() for name in REQUEST_HEADERS))
_SHOWN = (
    *("x-variant", "x-route-reason", "x-slo-met", "x-route-path", "x-escalation", "x-first-confidence", "x-cold"),
    *("x-device", "x-revision", "x-request-id", "x-request-dropped-reason", "retry-after", "server-timing"),
    *("inference-header-content-length", "endpoint-load-metrics"),
)


def cross_origin(app: AsgiApp, origins: tuple[str, ...]) -> AsgiApp:
    """The app, with what browsers ask before pages of these origins may; the app itself where there are none.

    Credentials that a browser sends by itself (cookies) are never wanted: a page shows an API key.
    """
    if not origins:
        return app
    of_pages = CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=_ASKED_WITH,
        expose_headers=_SHOWN,
        max_age=_MAX_AGE_S,
    )

    async def of_all(scope: Scope, receive: Receive, send: Send) -> None:
        # The middleware wraps every `send`, which costs an answer its one write.
        from_page = scope["type"] == "http" and any(name == b"origin" for name, _ in scope["headers"])
        await (of_pages if from_page else app)(scope, receive, send)

    return of_all
