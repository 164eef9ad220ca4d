"""The pages of the open protocol that describe: server, models, versions, readiness, statistics, repository index."""

from __future__ import annotations

from time import monotonic

from service import SERVER_NAME, __version__
from service.canary_control import CanaryControl
from service.eligibility import check_variant
from service.exchange import Receive, Scope, Send, read_body, send_whole
from service.gateway import Gateway
from service.load_request import read_load_request
from service.loading import LoadedFamily
from service.oip.errors import ProtocolError
from service.oip.headers import tenant_of
from service.oip.metadata import (
    model_metadata,
    read_index_request,
    readiness,
    repository_index,
    server_metadata,
)
from service.oip.statistics import statistics_body
from service.repository_control import RepositoryControl

PLATFORM = "onnxruntime_onnx"
INDEX_LIMIT_BYTES = 64 * 1024


class WrongMethodError(ProtocolError):
    """405 for a path that is there but takes another method: `allow` is what it takes."""

    def __init__(self, allow: str, got: str) -> None:
        super().__init__(405, f"expected {allow}, got {got[:20]}")
        self.allow = allow


class ProtocolPages:
    """Answers everything under `/v2` but inference and the server's own health."""

    def __init__(self, gateway: Gateway, control: RepositoryControl, canaries: CanaryControl) -> None:
        self._gateway = gateway
        self._control = control
        self._canaries = canaries

    async def handle(self, scope: Scope, parts: list[str], receive: Receive, send: Send) -> None:
        """Answer `/v2/` + parts. Raises `ProtocolError` 404 or 405 for what is not there."""
        method = scope["method"]
        match parts:
            case ["repository", "index"]:
                need(method, "POST")
                body = await read_body(receive, INDEX_LIMIT_BYTES, None)
                content = repository_index(self._control.index(), read_index_request(body))
            case ["repository", "models", name, "load" | "unload" as wanted]:
                need(method, "POST")
                asked = read_load_request(await read_body(receive, INDEX_LIMIT_BYTES, None))
                if wanted == "unload" and asked.trial is not None:
                    raise ProtocolError(400, "a trial begins with load; what ends it is /admin/canaries/NAME/rollback")
                if wanted == "unload":
                    await self._control.unload(name)
                elif asked.trial is not None and asked.revision is not None:
                    await self._canaries.start(name, asked.revision, asked.trial)
                else:
                    await self._control.load(name, asked.revision)
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
                return server_metadata(SERVER_NAME, __version__)
            case ["models", "stats"]:
                need(method, "GET")
                return statistics_body(self._gateway.statistics.counters())
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
        loaded = self._gateway.loaded(name)
        if variant is not None:
            check_variant(loaded, variant)
        if rest == ["ready"]:
            if not self._gateway.is_welcoming:
                raise self._gateway.unavailable()
            if variant is not None and variant not in loaded.paths:
                raise ProtocolError(400, f"version {variant!r} of {name} is not in memory")
            return readiness(name, True, variant)
        if rest == ["stats"]:
            return statistics_body(self._gateway.statistics.counters(name, variant))
        return self._metadata(loaded, variant)

    def _metadata(self, loaded: LoadedFamily, variant: str | None) -> bytes:
        manifest = loaded.manifest
        versions = (
            [v.name for v in loaded.family.variants if v.name not in loaded.refused] if variant is None else [variant]
        )
        return model_metadata(manifest.name, versions, PLATFORM, manifest.inputs, manifest.outputs)


def need(method: str, expected: str) -> None:
    """Raise `WrongMethodError` for another method than the expected one; HEAD is as good as GET."""
    if method != expected and not (expected == "GET" and method == "HEAD"):
        raise WrongMethodError(expected, method)
