"""The pages of the open protocol that describe: server, models, versions, readiness, statistics, repository index."""

from __future__ import annotations

from time import monotonic

import orjson

from service.descriptions import Descriptions
from service.exchange import SMALL_BYTES, Receive, Scope, Send, read_body, send_whole
from service.gateway import Gateway
from service.load_request import read_load_request
from service.oip.errors import ProtocolError
from service.oip.headers import tenant_of
from service.oip.metadata import read_index_request, readiness


class WrongMethodError(ProtocolError):
    """405 for a path that is there but takes another method: `allow` is what it takes."""

    def __init__(self, allow: str, got: str) -> None:
        super().__init__(405, f"expected {allow}, got {got[:20]}")
        self.allow = allow


class ProtocolPages:
    """Answers everything under `/v2` but inference and the server's own health."""

    def __init__(self, gateway: Gateway, descriptions: Descriptions) -> None:
        self._gateway = gateway
        self._descriptions = descriptions

    async def handle(self, scope: Scope, parts: list[str], receive: Receive, send: Send) -> None:
        """Answer `/v2/` + parts. Raises `ProtocolError` 404 or 405 for what is not there."""
        method = scope["method"]
        match parts:
            case ["repository", "index"]:
                need(method, "POST")
                body = await read_body(receive, SMALL_BYTES, None)
                content = orjson.dumps(self._descriptions.index(only_ready=read_index_request(body)))
            case ["repository", "models", name, "load" | "unload" as wanted]:
                need(method, "POST")
                asked = read_load_request(await read_body(receive, SMALL_BYTES, None))
                change = self._descriptions.load if wanted == "load" else self._descriptions.unload
                await change(name, asked)
                content = b"{}"
            case ["models", name, "feedback"]:
                need(method, "POST")
                loaded = self._gateway.loaded(name)
                body = await read_body(receive, self._gateway.settings.max_json_bytes, None)
                tenant = tenant_of(scope["headers"])
                content = self._gateway.feedback.judge(name, loaded.manifest.labels, body, monotonic(), tenant)
            case _:
                content = self._page(method, parts)
        await send_whole(send, 200, content)

    def _page(self, method: str, parts: list[str]) -> bytes:
        match parts:
            case [] | [""]:
                need(method, "GET")
                return orjson.dumps(self._descriptions.server())
            case ["models", "stats"]:
                need(method, "GET")
                return orjson.dumps(self._descriptions.statistics(None, None))
            case ["models", name, *rest]:
                return self._model_page(method, name, rest)
            case _:
                raise ProtocolError(404, f"no such path: {'/v2/' + '/'.join(parts)[:80]!r}")

    def _model_page(self, method: str, name: str, rest: list[str]) -> bytes:
        variant = None
        if rest[:1] == ["versions"] and len(rest) > 1:
            variant, rest = rest[1], rest[2:]
        if rest not in ([], ["ready"], ["stats"]):
            if rest == ["infer"]:
                raise WrongMethodError("POST", method)
            raise ProtocolError(404, f"no such path: {'/v2/models/' + '/'.join([name, *rest])[:80]!r}")
        need(method, "GET")
        if rest == ["ready"]:
            self._descriptions.check_ready(name, variant)
            return orjson.dumps(readiness(name, True, variant))
        if rest == ["stats"]:
            return orjson.dumps(self._descriptions.statistics(name, variant))
        return orjson.dumps(self._descriptions.model(name, variant))


def need(method: str, expected: str) -> None:
    """Raise `WrongMethodError` for another method than the expected one; HEAD is as good as GET."""
    if method != expected and not (expected == "GET" and method == "HEAD"):
        raise WrongMethodError(expected, method)
