"""The ways in beside `port`: the admin port and gRPC, where the settings open them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.admin_listener import AdminListener
from service.answering import Answering
from service.connections import bounded
from service.descriptions import Descriptions
from service.exchange import AsgiApp
from service.gate import gated
from service.gateway import Gateway
from service.lifecycle import Listener

if TYPE_CHECKING:
    from service.rpc.server import RpcServer


class OtherPorts:
    """What listens on them; the admin port serves `app`."""

    def __init__(self, gateway: Gateway, app: AsgiApp, answering: Answering, descriptions: Descriptions) -> None:
        settings = gateway.settings
        self.listeners: list[Listener] = []
        if settings.admin_port is not None:
            protocol = bounded(gateway.connections)
            self.listeners.append(AdminListener(settings, gated(app, gateway), protocol))
        self._rpc: RpcServer | None = None
        if settings.grpc_port is not None:
            # Here, because gRPC takes time and memory that replicas without it need not have.
            from service.rpc.server import RpcServer  # noqa: PLC0415 - see above

            self._rpc = RpcServer(gateway, answering, descriptions)
            self.listeners.append(self._rpc)

    def changed(self) -> None:
        """The gateway, or a family of it, may be in another state than before."""
        if self._rpc is not None:
            self._rpc.changed()
