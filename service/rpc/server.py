"""The gRPC server of a replica: its port, its bounds, the table of its methods, its end."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Awaitable, Callable
from math import ceil
from typing import Any

# Before gRPC is loaded: nothing here forks, and its lines would stand unformatted between those of the log.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
from google.protobuf.message import Message
from grpc_health.v1.health_pb2 import HealthCheckRequest

from service.access import ANYBODY, Role
from service.admin_access import check_admin
from service.answering import Answering
from service.connections import UNREAD_S
from service.descriptions import Descriptions
from service.exchange import BODY_TIMEOUT_S, RawHeaders
from service.gateway import Gateway
from service.oip.errors import ProtocolError
from service.ports import occupant
from service.rpc import open_inference_pb2 as messages
from service.rpc.calls import Context, admitted, peer_address
from service.rpc.certificate import Certificate
from service.rpc.descriptions import RpcDescriptions, model_of
from service.rpc.entry import Answer, Entry, Handler
from service.rpc.health import SERVICE as HEALTH
from service.rpc.health import Health
from service.rpc.inference import RpcInference
from service.rpc.open_calls import OpenCalls
from service.rpc.reading import MessageReader
from service.rpc.reflection import PATH as REFLECTION
from service.rpc.reflection import Reflection
from service.settings import Settings

logger = logging.getLogger("pareto.rpc")

INFERENCE = "inference.GRPCInferenceService"

SPARE_CALLS = 256
"""Calls at a time besides those that wait for an answer: health, descriptions, what is being read."""
UNTAKEN_CALLS = 3000
"""So many calls, or all that may be open at a time where those are more, may have come and not been taken in yet. The
library ends what comes beyond that as if its caller had, and so it would from 1000 on: they come at once, and are taken
in one by one."""
CONNECTION_CALLS = 100
"""At a time by one connection; a client with more waits by itself. The least that HTTP/2 recommends."""
IDLE_MS = 5 * 60 * 1000
"""A connection without calls is closed after this long; clients open another one when they need it."""
AGE_MS = 5 * 60 * 1000
"""A connection takes no new calls after this long, and is closed when those that it has are answered: clients open
another one, and so find replicas that were added."""
LEAVE_S = 0.5
QUIET_S = 0.02
"""Before the port is closed, calls that have come are taken in and told to go elsewhere, until none came for `QUIET_S`,
`LEAVE_S` at most. The library would end them as if their callers had."""
END_S = 2.0
"""For so long answers that are ready may still be on their way when the server ends."""


class RpcServer:
    """Serves one replica over gRPC on the running event loop, between `open` and `close`."""

    def __init__(self, gateway: Gateway, answering: Answering, descriptions: Descriptions) -> None:
        settings = gateway.settings
        self._gateway = gateway
        self._reader = MessageReader(answering.inflight, settings.max_body_bytes)
        self._calls = OpenCalls(settings.backlog + SPARE_CALLS)
        self._entry = Entry(gateway, self._calls)
        self._health = Health(gateway, INFERENCE, self._calls)
        self._server: grpc.aio.Server | None = None
        inference = RpcInference(gateway, answering, self._reader)
        table = self._table(inference, RpcDescriptions(gateway, descriptions))
        self._methods = Methods(table, self._entry.unary("a method that there is not", _unimplemented))

    async def open(self) -> None:
        """Listen. Raises `OSError` that names the setting where that cannot be."""
        settings = self._gateway.settings
        host, port = settings.host, settings.grpc_port
        assert port is not None, "without a port there is no server"
        if taken := occupant(host, port, ("`host`", "`grpc_port`")):
            raise OSError(errno.EADDRINUSE, taken)
        server = grpc.aio.server(options=_options(settings, self._gateway.connections.most))
        server.add_generic_rpc_handlers((self._methods,))
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        tls = settings.ssl_certfile is not None
        try:
            if tls:
                server.add_secure_port(address, Certificate(settings, self._gateway.connections).credentials())
            else:
                server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(errno.EADDRINUSE, f"grpc_port: {address} cannot be used: {error}") from None
        await server.start()
        self._server = server
        logger.info("gRPC on %s%s", address, ", with TLS" if tls else "")

    def changed(self) -> None:
        """The replica, or a family of it, may be in another state than before: watchers are told."""
        self._health.changed()

    async def close(self, drained: Awaitable[None]) -> None:
        """Tell connections to go, answer what they have sent until all is `drained`, let the last answers go out."""
        self._health.close()
        if self._server is None:
            await drained
            return
        await self._taken_in()
        leaving = asyncio.create_task(self._server.stop(self._gateway.settings.drain_s + END_S))
        await drained
        await self._server.stop(END_S)
        await leaving

    async def _taken_in(self) -> None:
        """Let calls in that have come already: nothing is taken any more, and they are told so."""
        loop = asyncio.get_running_loop()
        until_s, begun = loop.time() + LEAVE_S, -1
        while begun != self._calls.begun and loop.time() < until_s:
            begun = self._calls.begun
            await asyncio.sleep(QUIET_S)

    def _table(self, inference: RpcInference, said: RpcDescriptions) -> dict[str, Handler]:
        asked: list[tuple[str, type[Message], Callable[[Any], Awaitable[Message]], Role | None]] = [
            ("ServerLive", messages.ServerLiveRequest, said.server_live, None),
            ("ServerReady", messages.ServerReadyRequest, said.server_ready, None),
            ("ServerMetadata", messages.ServerMetadataRequest, said.server_metadata, Role.INFER),
            ("ModelReady", messages.ModelReadyRequest, said.model_ready, Role.INFER),
            ("ModelMetadata", messages.ModelMetadataRequest, said.model_metadata, Role.INFER),
            ("ModelStatistics", messages.ModelStatisticsRequest, said.model_statistics, Role.INFER),
            ("RepositoryIndex", messages.RepositoryIndexRequest, said.repository_index, Role.INFER),
            ("RepositoryModelLoad", messages.RepositoryModelLoadRequest, said.load, Role.ADMIN),
            ("RepositoryModelUnload", messages.RepositoryModelUnloadRequest, said.unload, Role.ADMIN),
        ]
        entry = self._entry
        methods = {
            f"/{INFERENCE}/{name}": entry.unary(name, self._asked(name, kind, answer, need))
            for name, kind, answer, need in asked
        }
        methods[f"/{INFERENCE}/ModelInfer"] = entry.unary("ModelInfer", inference.infer)
        methods[f"/{INFERENCE}/ModelStreamInfer"] = entry.stream("ModelStreamInfer", _no_stream)
        check = self._asked("Check", HealthCheckRequest, self._health.check, None)
        methods[f"/{HEALTH}/Check"] = entry.unary("Check", check)
        methods[f"/{HEALTH}/Watch"] = entry.stream("Watch", self._watch)
        if self._gateway.settings.grpc_reflection:
            about = Reflection(self._gateway.access, (INFERENCE, HEALTH), self._reader, self._calls)
            methods[REFLECTION] = entry.stream("ServerReflectionInfo", about.info)
        return methods

    def _asked(
        self, name: str, kind: type[Message], answer: Callable[[Any], Awaitable[Message]], need: Role | None
    ) -> Answer:
        """What answers a message of that kind without tensors, from callers with that role or (`None`) anybody."""

        async def asked(context: Context, _: RawHeaders) -> Message:
            key, metadata = admitted(self._gateway.access, context, need) if need is not None else (ANYBODY, ())
            request: Any = await self._reader.read_small(kind, context)
            if need is Role.ADMIN:
                what = f"{name} {model_of(request)[:80]!r}"
                check_admin(self._gateway, what, key.name, peer_address(context), metadata)
            return await answer(request)

        return asked

    async def _watch(self, context: Context, _: RawHeaders) -> None:
        request = await self._reader.read_small(HealthCheckRequest, context)
        await self._health.watch(request.service, context)


class Methods(grpc.GenericRpcHandler):
    """Finds the method that is called, by its path; `others` handles all that there are not."""

    def __init__(self, table: dict[str, Handler], others: Handler) -> None:
        self._table = table
        self._others = others

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler:
        """See `grpc.GenericRpcHandler`."""
        return self._table.get(handler_call_details.method, self._others)


async def _no_stream(context: Context, _: RawHeaders) -> None:
    raise ProtocolError(
        501, "ModelStreamInfer: there are no streams of inference here; call ModelInfer for each request"
    )


async def _unimplemented(context: Context, _: RawHeaders) -> Message:
    raise ProtocolError(501, "no such method here; docs/grpc.md has those that there are")


def _options(settings: Settings, connections: int) -> list[tuple[str, int]]:
    untaken = max(UNTAKEN_CALLS, settings.backlog + SPARE_CALLS)
    longest_s = max([settings.timeout_s, *map(settings.timeout_of, settings.families)])
    return [
        # Otherwise a second server would listen on the same port, and neither would know.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", settings.max_body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", CONNECTION_CALLS),
        # The first is where the library would begin to end some of them by chance.
        ("grpc.server.max_pending_requests", untaken),
        ("grpc.server.max_pending_requests_hard_limit", untaken),
        ("grpc.max_allowed_incoming_connections", connections),
        ("grpc.max_connection_idle_ms", IDLE_MS),
        ("grpc.max_connection_age_ms", AGE_MS),
        ("grpc.max_connection_age_grace_ms", ceil(1e3 * (longest_s + BODY_TIMEOUT_S + UNREAD_S))),
    ]
