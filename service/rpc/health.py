"""`grpc.health.v1`: whether the server, its inference service and each family take requests.

What is told is read from the gateway when it is told; watchers are woken when it may be something else. The servicer of
`grpcio-health-checking` (1.81) is not used, only its messages: it forgets all watchers of a service once one of them
leaves, and one that does not read keeps everybody from being told.
"""

from __future__ import annotations

import asyncio

from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from service.gateway import Gateway, Phase
from service.oip.errors import ProtocolError
from service.rpc.calls import Context
from service.rpc.open_calls import OpenCalls

SERVICE = "grpc.health.v1.Health"

MOST_WATCHERS = 64
"""At a time, a quarter of the calls that there may be beside inference; balancers have one for each of their
processes."""


class Health:
    """Answers `Check` and `Watch`; `inference_service` is the name of the service that stands for the whole replica."""

    def __init__(self, gateway: Gateway, inference_service: str, calls: OpenCalls) -> None:
        self._gateway = gateway
        self._calls = calls
        self._whole = ("", inference_service)
        self._seen: set[str] = set()
        self._changed = asyncio.Event()
        self._watchers = 0
        self._closed = False

    def changed(self) -> None:
        """Something else may be told from now on."""
        self._seen |= self._gateway.families.keys()
        self._changed.set()
        self._changed = asyncio.Event()

    def close(self) -> None:
        """Let watchers go, once they are told."""
        self._closed = True
        self.changed()

    async def check(self, request: HealthCheckRequest) -> HealthCheckResponse:
        """The status of a service. Raises `ProtocolError` 404 for one that there never was."""
        status = self._status(request.service)
        if status is None:
            raise ProtocolError(404, f"service {request.service[:80]!r} not found")
        return HealthCheckResponse(status=status)

    async def watch(self, service: str, context: Context) -> None:
        """Tell the status of a service now and at each change, until the caller hangs up or the replica ends.

        Raises `ProtocolError` 429 where too many watch.
        """
        if self._watchers >= MOST_WATCHERS:
            raise ProtocolError(429, f"at most {MOST_WATCHERS} may watch at a time")
        self._watchers += 1
        told: int | None = None
        try:
            while True:
                changed, closed = self._changed, self._closed
                status = self._status(service)
                status = HealthCheckResponse.SERVICE_UNKNOWN if status is None else status
                if status != told:
                    await self._calls.write(context, HealthCheckResponse(status=status))
                    told = status
                if closed:
                    return
                await changed.wait()
        finally:
            self._watchers -= 1

    def _status(self, service: str) -> int | None:
        gateway = self._gateway
        if service in self._whole or service in gateway.families:
            return HealthCheckResponse.SERVING if gateway.is_welcoming else HealthCheckResponse.NOT_SERVING
        # While families are loaded nobody knows yet which there are.
        known = gateway.phase is Phase.LOADING or service in self._seen or service in gateway.problems
        return HealthCheckResponse.NOT_SERVING if known else None
