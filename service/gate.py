"""The gate before the data plane, where there are API keys: which role a path needs, and who is let through.

It is in the way only where keys are configured. Everything that is not said to be open needs a key, whoever answers it,
if anybody does; a path that is not named here needs the role `infer`.
"""

from __future__ import annotations

from collections.abc import Collection

from service.access import Role, asked_as, shown_secret
from service.admin_access import ADMIN_PATHS, KEY_NAME
from service.exchange import AsgiApp, Message, Receive, Scope, Send, send_error
from service.gateway import Gateway
from service.oip.errors import ProtocolError
from service.page.files import page_files

HEALTH = frozenset({"/livez", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
"""For probes, which have no keys."""

METRICS = frozenset({"/metrics"})
PAGE = frozenset({"/events", "/page/samples", "/page/sample", "/page/comparison"})
"""What the page shows. Its files are open: they hold nothing, and ask for the key."""


def role_for(path: str) -> Role:
    """The role that a key needs for a path that is not open."""
    if path.startswith(ADMIN_PATHS):
        return Role.ADMIN
    return Role.READ if path in METRICS or path in PAGE else Role.INFER


def open_paths(keyless: Collection[str]) -> frozenset[str]:
    """The paths that need no key, with those of the `keyless` surfaces: `metrics` and `page`."""
    paths = HEALTH | frozenset(page_files())
    if "metrics" in keyless:
        paths |= METRICS
    return paths | PAGE if "page" in keyless else paths


def gated(app: AsgiApp, gateway: Gateway) -> AsgiApp:
    """The app with a gate before it, where the gateway has keys."""
    return app if gateway.access.keys is None else Gate(app, gateway)


class Gate:
    """An ASGI app that lets those with a key through to another one."""

    def __init__(self, app: AsgiApp, gateway: Gateway) -> None:
        self._app = app
        self._access = gateway.access
        self._metrics = gateway.metrics
        self._open = open_paths(gateway.settings.keyless)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] == "http" and scope["path"] not in self._open:
            try:
                key = self._access.admit(shown_secret(scope["headers"]), role_for(scope["path"]))
            except ProtocolError as error:
                self._metrics.protocol_error(error.status)
                await send_error(send, error)
                return
            scope[KEY_NAME] = key.name
            scope["headers"] = asked_as(key, scope["headers"])
            if scope["method"] != "POST":
                send = _not_stored(send)
        await self._app(scope, receive, send)


def _not_stored(send: Send) -> Send:
    """A cache shared by many keeps answers apart by `authorization`, but knows nothing of `x-api-key`."""

    async def send_with(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = message.get("headers", ())
            if all(name != b"cache-control" for name, _ in headers):
                message = {**message, "headers": [*headers, (b"cache-control", b"no-store")]}
        await send(message)

    return send_with
