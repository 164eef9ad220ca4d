"""Reflection: tools such as grpcurl ask which services, methods and messages there are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

from service.access import Access, Role
from service.exchange import REQUEST_TIMEOUT, RawHeaders
from service.oip.errors import ProtocolError
from service.rpc.calls import Context, admitted
from service.rpc.descriptors import POOL
from service.rpc.open_calls import OpenCalls
from service.rpc.reading import MessageReader

PATH = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

MOST_STREAMS = 16
"""At a time."""


class Reflection:
    """Tells of these services, whose descriptors are in the pool or in other packages' messages."""

    def __init__(self, access: Access, services: Iterable[str], reader: MessageReader, calls: OpenCalls) -> None:
        self._access = access
        self._reader = reader
        self._calls = calls
        for others in (health_pb2, reflection_pb2):
            POOL.AddSerializedFile(others.DESCRIPTOR.serialized_pb)
        self._servicer = ReflectionServicer(services, pool=POOL)
        self._streams = 0

    async def info(self, context: Context, _: RawHeaders) -> None:
        """Answer questions until the caller has no more, or says nothing. Raises `ProtocolError`."""
        admitted(self._access, context, Role.INFER)
        if self._streams >= MOST_STREAMS:
            raise ProtocolError(429, f"at most {MOST_STREAMS} may ask at a time")
        self._streams += 1
        try:
            answers: Any = self._servicer.ServerReflectionInfo(self._requests(context), context)
            async for response in answers:
                await self._calls.write(context, response)
        finally:
            self._streams -= 1

    async def _requests(self, context: Context) -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        while True:
            try:
                request = await self._reader.next_small(reflection_pb2.ServerReflectionRequest, context)
            except ProtocolError as error:
                if error.status != REQUEST_TIMEOUT:
                    raise
                # Tools may keep a stream for the next question; they open another one where it has ended.
                return
            if request is None:
                return
            yield request
