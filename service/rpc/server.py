"""The gRPC server of a replica: its port, its bounds, the table of its methods, its end."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

# Before gRPC is loaded: nothing here forks, and its lines would stand unformatted between those of the log.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
from google.protobuf.message import Message
from grpc_health.v1.health_pb2 import HealthCheckRequest

from service.access import Role
from service.admin_access import check_admin
from service.answering import Answering
from service.descriptions import Descriptions
from service.gateway import Gateway
from service.oip.errors import ProtocolError
from service.ports import occupant
from service.rpc import open_inference_pb2 as messages
from service.rpc.calls import Context, admitted, peer_address, refuse
from service.rpc.certificate import Certificate
from service.rpc.descriptions import RpcDescriptions
from service.rpc.health import SERVICE as HEALTH
from service.rpc.health import Health
from service.rpc.inference import RpcInference
from service.rpc.reading import MessageReader
from service.rpc.reflection import PATH as REFLECTION
from service.rpc.reflection import Reflection
from service.settings import Settings

logger = logging.getLogger("pareto.rpc")
admin_logger = logging.getLogger("pareto.admin")

INFERENCE = "inference.GRPCInferenceService"

SPARE_CALLS = 256
"""Calls at a time besides those that wait for an answer: health, descriptions, what is being read."""
IDLE_MS = 5 * 60 * 1000
"""A connection without calls is closed after this long; clients open another one when they need it."""
END_S = 2.0
"""For so long answers that are ready may still be on their way when the server ends."""

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour: TypeAlias = "Callable[[Any, Context], Awaitable[Message]]"


class RpcServer:
    """Serves one replica over gRPC on the running event loop, between `open` and `close`."""

    def __init__(self, gateway: Gateway, answering: Answering, descriptions: Descriptions) -> None:
        settings = gateway.settings
        self._gateway = gateway
        self._reader = MessageReader(answering.inflight, settings.max_body_bytes)
        self._health = Health(gateway, INFERENCE)
        self._server: grpc.aio.Server | None = None
        inference = RpcInference(gateway, answering, self._reader)
        self._methods = Methods(self._table(inference, RpcDescriptions(gateway, descriptions)))

    async def open(self) -> None:
        """Listen. Raises `OSError` that names the setting where that cannot be."""
        settings = self._gateway.settings
        host, port = settings.host, settings.grpc_port
        assert port is not None, "without a port there is no server"
        if taken := occupant(host, port, ("`host`", "`grpc_port`")):
            raise OSError(errno.EADDRINUSE, taken)
        server = grpc.aio.server(options=_options(settings), maximum_concurrent_rpcs=_most_calls(settings))
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

    async def close(self) -> None:
        """Let the last answers go out, then close the port."""
        self._health.close()
        if self._server is not None:
            await self._server.stop(END_S)

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
        methods = {
            f"/{INFERENCE}/{name}": _unary(self._caught(name, kind, answer, need)) for name, kind, answer, need in asked
        }
        methods[f"/{INFERENCE}/ModelInfer"] = _unary(inference.infer)
        methods[f"/{HEALTH}/Check"] = _unary(self._caught("Check", HealthCheckRequest, self._health.check, None))
        methods[f"/{HEALTH}/Watch"] = grpc.stream_stream_rpc_method_handler(self._watch, None, _serialized)
        if self._gateway.settings.grpc_reflection:
            about = Reflection(self._gateway.access, (INFERENCE, HEALTH))
            methods[REFLECTION] = grpc.stream_stream_rpc_method_handler(about.info, None, _serialized)
        return methods

    def _caught(
        self, name: str, kind: type[Message], answer: Callable[[Any], Awaitable[Message]], need: Role | None
    ) -> Behaviour:
        """The handler of a method that gets a message of that kind, from callers with that role or (`None`) anybody."""

        async def caught(_: object, context: Context) -> Message:
            try:
                if need is not None:
                    key, metadata = admitted(self._gateway.access, context, need)
                    if need is Role.ADMIN:
                        peer = peer_address(context)
                        check_admin(self._gateway, peer, metadata)
                        admin_logger.info("%s for %s", name, key.name or peer)
                return await answer(await self._reader.read_small(kind, context))
            except ProtocolError as error:
                self._gateway.metrics.protocol_error(error.status)
                await refuse(context, error, [])
            except grpc.aio.BaseError:
                # gRPC's own: the call has ended already.
                raise
            except Exception:
                logger.exception("%s failed", name)
                self._gateway.metrics.protocol_error(500)
                await refuse(context, ProtocolError(500, "internal error"), [])

        return caught

    async def _watch(self, _: object, context: Context) -> None:
        try:
            request = await self._reader.read_small(HealthCheckRequest, context)
            await self._health.watch(request.service, context)
        except ProtocolError as error:
            await refuse(context, error, [])


class Methods(grpc.GenericRpcHandler):
    """Finds the method that is called, by its path."""

    def __init__(self, table: dict[str, Handler]) -> None:
        self._table = table
        self._others = _unary(_unimplemented)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler:
        """See `grpc.GenericRpcHandler`."""
        return self._table.get(handler_call_details.method, self._others)


async def _unimplemented(_: object, context: Context) -> Message:
    await refuse(context, ProtocolError(501, "no such method here; docs/grpc.md has those that there are"), [])


def _unary(behaviour: Behaviour) -> Handler:
    """Of a method that gets and gives one message; see `service.rpc.reading`."""
    return grpc.stream_unary_rpc_method_handler(behaviour, None, _serialized)


def _serialized(message: Message) -> bytes:
    serialized: bytes = message.SerializeToString()
    return serialized


def _most_calls(settings: Settings) -> int:
    return settings.backlog + SPARE_CALLS


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        # Otherwise a second server would listen on the same port, and neither would know.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", settings.max_body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", _most_calls(settings)),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.max_connection_idle_ms", IDLE_MS),
    ]
