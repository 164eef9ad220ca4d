"""The way into every method: a call is counted, answered or refused, and whatever goes wrong has a code of its own."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import Message

from service.exchange import ClientGone, RawHeaders
from service.gateway import Gateway
from service.oip.errors import DroppedError, ProtocolError
from service.rpc.calls import Context, refuse
from service.rpc.open_calls import OpenCalls

logger = logging.getLogger("pareto.rpc")

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Answer: TypeAlias = Callable[[Context, RawHeaders], Awaitable[Message | None]]
"""What answers a call; it puts into the list what a refusal is to say, too."""


class Entry:
    """Makes handlers of what answers calls, for one server."""

    def __init__(self, gateway: Gateway, calls: OpenCalls) -> None:
        self._gateway = gateway
        self._calls = calls

    def unary(self, name: str, answer: Answer) -> Handler:
        """Of a method that gets and gives one message; see `service.rpc.reading`."""
        return grpc.stream_unary_rpc_method_handler(self._caught(name, answer), None, _serialized)

    def stream(self, name: str, answer: Answer) -> Handler:
        """Of a method that sends messages itself."""
        return grpc.stream_stream_rpc_method_handler(self._caught(name, answer), None, _serialized)

    def _caught(self, name: str, answer: Answer) -> Callable[[Any, Context], Awaitable[Message | None]]:
        gateway, calls = self._gateway, self._calls

        async def caught(_: object, context: Context) -> Message | None:
            echoed: RawHeaders = []
            try:
                calls.begin()
                answered = await answer(context, echoed)
                calls.sends()
                return answered
            except DroppedError as dropped:
                error: ProtocolError = dropped
            except ProtocolError as wrong:
                gateway.metrics.protocol_error(wrong.status)
                error = wrong
            except ClientGone:
                error = ProtocolError(499, "the call was cancelled")
            except grpc.aio.BaseError:
                # gRPC's own: the call has ended already.
                raise
            except Exception:
                logger.exception("%s failed", name)
                gateway.metrics.protocol_error(500)
                error = ProtocolError(500, "internal error")
            calls.sends()
            return await refuse(context, error, echoed)

        return caught


def _serialized(message: Message) -> bytes:
    serialized: bytes = message.SerializeToString()
    return serialized
