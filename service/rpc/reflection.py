"""Reflection: tools such as grpcurl ask which services, methods and messages there are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

from service.access import Access, Role
from service.oip.errors import ProtocolError
from service.rpc.calls import Context, admitted, refuse
from service.rpc.descriptors import POOL
from service.rpc.reading import check_small, parse

PATH = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

MOST_STREAMS = 16
"""At a time."""


class Reflection:
    """Tells of these services, whose descriptors are in the pool or in other packages' messages."""

    def __init__(self, access: Access, services: Iterable[str]) -> None:
        self._access = access
        for others in (health_pb2, reflection_pb2):
            POOL.AddSerializedFile(others.DESCRIPTOR.serialized_pb)
        self._servicer = ReflectionServicer(services, pool=POOL)
        self._streams = 0

    async def info(self, _: object, context: Context) -> None:
        """Answer questions until the caller has no more."""
        self._streams += 1
        try:
            admitted(self._access, context, Role.INFER)
            if self._streams > MOST_STREAMS:
                raise ProtocolError(429, f"at most {MOST_STREAMS} may ask at a time")
            answers: Any = self._servicer.ServerReflectionInfo(_requests(context), context)
            async for response in answers:
                await context.write(response)
        except ProtocolError as error:
            await refuse(context, error, [])
        finally:
            self._streams -= 1


async def _requests(context: Context) -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
    message: Any = await context.read()
    while message is not grpc.aio.EOF:
        check_small(message)
        yield parse(reflection_pb2.ServerReflectionRequest, message)
        message = await context.read()
