"""A real gateway behind a real socket in this process, for policies and insights that settings do not offer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn
from uvicorn.config import LoopFactoryType

from loadtests.servers import free_port
from router.view import Policy
from service.connections import bounded
from service.dataplane import DataPlane
from service.exchange import Receive, Scope, Send
from service.gateway import Gateway
from service.settings import Settings
from tests.service.conftest import eventually


async def _nothing_inside(scope: Scope, receive: Receive, send: Send) -> None:
    """In BentoML's place: an app that only knows the lifespan protocol."""
    while True:
        kind: Any = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


@contextmanager
def serving(settings: Settings, policy: Policy | None = None, loop: LoopFactoryType = "auto") -> Iterator[httpx.Client]:
    """A client of a gateway with these settings and this policy (else theirs), from ready until drained.

    `loop` is the event loop, as uvicorn names it.
    """
    port = free_port()
    gateway = Gateway(settings, policy)
    app = DataPlane(gateway, _nothing_inside, frozenset())
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        http=bounded(gateway.connections),
        log_level="warning",
        lifespan="on",
        loop=loop,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30.0) as client:
            eventually(lambda: _is_ready(client), "the gateway is ready")
            yield client
    finally:
        server.should_exit = True
        thread.join()


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/v2/health/ready").status_code == 200
    except httpx.ConnectError:
        return False
