"""The outermost ASGI app: Open Inference Protocol v2, health, metrics and the page here, BentoML's surface behind it.

Outermost, because what BentoML wraps around a request (tracing, timeouts, metrics by raw path) costs several times
what the gateway itself does. Paths are answered from a table of exact paths, so that a million different ones cost a
look-up each and leave nothing behind; only BentoML's known paths are passed on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import orjson
from prometheus_client import CONTENT_TYPE_LATEST

from service.added_headers import add, adding
from service.admin_access import ADMIN_PATHS, ON_ADMIN_PORT, check_admin_request
from service.answering import Answering
from service.canary_control import CanaryControl
from service.descriptions import Descriptions
from service.eligibility import check_variant
from service.exchange import (
    JSON,
    AsgiApp,
    ClientGone,
    Message,
    Receive,
    Scope,
    Send,
    closing,
    read_body,
    send_error,
    send_whole,
)
from service.gateway import Gateway
from service.inference import InferenceHandler
from service.lifecycle import Lifecycle
from service.oip.errors import ProtocolError
from service.oip.headers import read_headers
from service.openapi.document import Served, openapi_document
from service.other_ports import OtherPorts
from service.page.pages import PRIVATE, Pages
from service.protocol_pages import ProtocolPages, WrongMethodError, need
from service.reloading import Reloading
from service.repository_control import RepositoryControl

logger = logging.getLogger("pareto.dataplane")

RELOAD_PATH = "/admin/reload"
CANARIES_PATH = "/admin/canaries"
OPENAPI_PATH = "/openapi.json"

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]

NATIVE_PAGE = "/native"
"""Where BentoML's page of the native API is, which it has at `/` itself."""


_FOREIGN = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
]
"""On what BentoML answers."""

_NATIVE_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""On its page: what it needs, which comes with it, and not the tag manager that it asks of somebody else."""


class DataPlane:
    """Answers what it knows and hands BentoML's known paths to `inner`.

    `inner_paths` is that closed set, so that no caller can make BentoML's metrics grow with paths of his own.
    """

    def __init__(self, gateway: Gateway, inner: AsgiApp, inner_paths: frozenset[str]) -> None:
        self._gateway = gateway
        self._inner = inner
        self._inner_paths = inner_paths
        answering = Answering(gateway)
        self._inference = InferenceHandler(gateway, answering)
        self.control = RepositoryControl(gateway, self.index_paths)
        self._reloading = Reloading(gateway, self.control)
        self._canaries = CanaryControl(gateway, self.control)
        descriptions = Descriptions(gateway, self.control, self._canaries)
        self._pages = ProtocolPages(gateway, descriptions)
        self._others = OtherPorts(gateway, self._on_admin_port, answering, descriptions)
        gateway.changed = self._others.changed
        self._lifecycle = Lifecycle(gateway, self._others.listeners, self._others.changed)
        self._own_page = Pages(gateway, gateway.feed) if gateway.feed is not None else None
        self._fixed: dict[str, Handler] = {
            "/metrics": self._metrics,
            "/livez": self._live,
            "/healthz": self._live,
            "/readyz": self._ready,
            "/v2/health/live": self._live,
            "/v2/health/ready": self._ready,
            CANARIES_PATH: self._trials,
            OPENAPI_PATH: self._openapi,
        }
        if self._own_page is not None:
            self._fixed.update(dict.fromkeys(self._own_page.paths, self._own_page.handle))
        self._infer_paths: dict[str, tuple[str, str | None]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] == "http":
            path = scope["path"]
            if self._gateway.leaving:
                send = closing(send)
            target = self._infer_paths.get(path) if scope["method"] == "POST" else None
            if target is not None:
                await self._inference.handle(target[0], target[1], scope, receive, send)
            elif path in self._inner_paths:
                await self._pass_on(scope, receive, send)
            else:
                await self._answer(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifecycle.run(self._inner, scope, receive, send, self.index_paths, self._reloading.reload)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    async def _on_admin_port(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[ON_ADMIN_PORT] = True
        await self(scope, receive, send)

    def index_paths(self) -> None:
        """Make the table of inference paths from what is served."""
        table: dict[str, tuple[str, str | None]] = {}
        for name, loaded in self._gateway.families.items():
            table[f"/v2/models/{name}/infer"] = (name, None)
            for variant in loaded.family.variants:
                table[f"/v2/models/{name}/versions/{variant.name}/infer"] = (name, variant.name)
        self._infer_paths = table
        self._others.changed()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        handler = self._fixed.get(path)
        try:
            if method == "POST" and path.startswith(ADMIN_PATHS):
                check_admin_request(self._gateway, scope)
            if path == RELOAD_PATH:
                need(method, "POST")
                await send_whole(send, 200, await self._reloading.reload(), JSON)
                return
            if handler is not None:
                need(method, "GET")
                await handler(scope, receive, send)
                return
            parts = path.split("/")
            if path.startswith(CANARIES_PATH) and len(parts) == 5 and parts[4] in ("promote", "rollback"):
                need(method, "POST")
                await send_whole(send, 200, await self._canaries.act(parts[3], parts[4]), JSON)
                return
            if parts[:2] != ["", "v2"]:
                raise ProtocolError(404, f"no such path: {path[:80]!r}")
            if method == "POST" and parts[-1] == "infer":
                await self._misdirected(parts, scope, receive, send)
                return
            await self._pages.handle(scope, parts[2:], receive, send)
        except ProtocolError as error:
            # A prober that asks until the replica is ready is told so; no request was refused.
            if error.status != HTTPStatus.SERVICE_UNAVAILABLE or not _asks_for_readiness(path):
                self._gateway.metrics.protocol_error(error.status)
            await send_error(
                send, error, [(b"allow", error.allow.encode())] if isinstance(error, WrongMethodError) else ()
            )
        except ClientGone:
            return

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request to BentoML, which sets no bound on bodies itself."""
        limit_bytes = self._gateway.settings.max_body_bytes
        try:
            # The other headers mean nothing to BentoML, so what is wrong with them is no reason to refuse its pages.
            lengths = [header for header in scope["headers"] if header[0] == b"content-length"]
            declared = read_headers(lengths).content_length
            body = await read_body(receive, limit_bytes, declared)
        except ProtocolError as error:
            self._gateway.metrics.protocol_error(error.status)
            await send_error(send, error)
            return
        except ClientGone:
            return
        given = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def whole() -> Message:
            return next(given, None) or await receive()

        adding_send = adding(send)
        add(_FOREIGN)
        if scope["path"] == NATIVE_PAGE:
            scope = {**scope, "path": "/", "raw_path": b"/"}
            add([(b"content-security-policy", _NATIVE_POLICY)])
        await self._inner(scope, whole, adding_send)

    async def _misdirected(self, parts: list[str], scope: Scope, receive: Receive, send: Send) -> None:
        """An inference path outside the table: say what is wrong with it."""
        match parts[2:]:
            case ["models", name, "infer"]:
                self._gateway.loaded(name)
            case ["models", name, "versions", version, "infer"]:
                check_variant(self._gateway.loaded(name), version)
            case _:
                raise ProtocolError(404, f"no such path: {'/'.join(parts)[:80]!r}")
        raise ProtocolError(404, f"no such path: {'/'.join(parts)[:80]!r}")

    async def _metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        text = await asyncio.to_thread(self._gateway.metrics.exposition)
        await send_whole(send, 200, text, CONTENT_TYPE_LATEST.encode(), PRIVATE)

    async def _trials(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_whole(send, 200, self._canaries.listed(), JSON)

    async def _openapi(self, scope: Scope, receive: Receive, send: Send) -> None:
        models = {
            name: Served(loaded.manifest.inputs, [variant.name for variant in loaded.family.variants])
            for name, loaded in self._gateway.families.items()
        }
        await send_whole(send, 200, orjson.dumps(openapi_document(models)), JSON)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_whole(send, 200, b'{"live":true}', JSON)

    async def _ready(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._gateway.is_welcoming:
            raise self._gateway.unavailable()
        await send_whole(send, 200, b'{"ready":true}', JSON)


def _asks_for_readiness(path: str) -> bool:
    """Whether it is the readiness of the server, of a model or of a version."""
    match path.split("/"):
        case ["", "v2", "models", _, "ready"] | ["", "v2", "models", _, "versions", _, "ready"]:
            return True
        case _:
            return path in ("/readyz", "/v2/health/ready")
