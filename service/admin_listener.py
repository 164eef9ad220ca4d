"""A second HTTP listener in the event loop that serves already: for admin routes, on an address of their own."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager

import uvicorn

from service.exchange import AsgiApp
from service.settings import Settings

logger = logging.getLogger("pareto.admin")

END_S = 2
"""How long requests may still take when it closes."""


class AdminListener:
    """Serves an app at `admin_host` and `admin_port` from `open` to `close`."""

    def __init__(self, settings: Settings, app: AsgiApp, protocol: type[asyncio.Protocol]) -> None:
        assert settings.admin_port is not None, "there is one only where it has a port"
        self._address = (settings.admin_host, settings.admin_port)
        self._server = _Server(
            uvicorn.Config(
                app,
                http=protocol,
                ws="none",
                interface="asgi3",
                lifespan="off",
                log_config=None,
                server_header=False,
                timeout_keep_alive=settings.keep_alive_s,
                ssl_certfile=settings.ssl_certfile,
                ssl_keyfile=settings.ssl_keyfile,
                timeout_graceful_shutdown=END_S,
            )
        )
        self._serving: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Listen. Raises `OSError` that names the setting where that cannot be."""
        host, port = self._address
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            listening = socket.create_server((host, port), family=family)
        except OSError as error:
            raise OSError(error.errno, f"admin_port: {port} on {host} cannot be used: {error.strerror}") from error
        self._serving = asyncio.create_task(self._server.serve([listening]))
        logger.info("admin routes at %s, port %d", host, port)

    async def close(self, drained: Awaitable[None]) -> None:
        """Answer until all is `drained`, let requests that run end, and close everything."""
        await drained
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving


class _Server(uvicorn.Server):
    """One that leaves signals to whoever has the process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield
