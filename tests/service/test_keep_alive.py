"""The end of idle connections: a request that arrives just then is answered, not cut off."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from uvicorn import Config
from uvicorn.server import ServerState

from service.connections import HEAD_S, BoundedProtocol, Connections

REQUEST = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n"
LOOPS = pytest.mark.parametrize("loop", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


LARGE = 8_000_000
"""More bytes of an answer than two ends of a connection hold."""


async def app(scope: Any, _: Any, send: Any) -> None:
    """Answers everything alike, but for `/large`."""
    content = LARGE * b"x" if scope["path"] == "/large" else b"ok"
    headers = [(b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


class Watched(BoundedProtocol):
    """Tells when it is connected, and when it has read something."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.connected = asyncio.Event()
        self.has_read = asyncio.Event()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.connected.set()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.has_read.set()


class Caller:
    """Somebody in the same thread as the server: what they send has arrived, and is read when that awaits."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def asks(self, data: bytes) -> None:
        """Send this."""
        self.connection.send(data)

    async def hears(self) -> bytes:
        """The next piece that comes; empty where the connection is closed."""
        try:
            return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.connection, 65536), 20.0)
        except ConnectionResetError:
            return b""


@asynccontextmanager
async def connected(connections: Connections) -> AsyncIterator[tuple[Watched, Caller]]:
    """A server's side of a connection, in this event loop, and the caller's."""

    class OfThese(Watched):
        bound_to = connections

    config = Config(app, http=OfThese, lifespan="off")
    config.load()
    protocol = OfThese(config=config, server_state=ServerState(), app_state={})
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
    with socket.socket() as connection:
        connection.setblocking(False)
        await loop.sock_connect(connection, server.sockets[0].getsockname())
        await protocol.connected.wait()
        yield protocol, Caller(connection)
    server.close()


@LOOPS
def test_what_arrives_when_an_idle_connection_ends_is_answered(loop: Callable[..., None]) -> None:
    """Its time is over while a request is there that the event loop has not read: that one is answered."""

    async def run() -> None:
        async with connected(Connections(10)) as (protocol, caller):
            for _ in range(2):
                caller.asks(REQUEST)
                assert (await caller.hears()).startswith(b"HTTP/1.1 200")
            caller.asks(REQUEST)
            protocol.timeout_keep_alive_handler()
            assert (await caller.hears()).endswith(b"ok")
            protocol.timeout_keep_alive_handler()
            # At once, before the event loop goes on.
            assert b"" == caller.connection.recv(1)

    loop(run())


@LOOPS
@pytest.mark.parametrize("begun", [b"", REQUEST[:10]])
def test_a_first_request_that_arrives_when_its_time_is_over_is_answered(
    loop: Callable[..., None], begun: bytes
) -> None:
    """Where nothing came before, that is; half a head is cut off, whatever else has come."""

    async def run() -> None:
        connections = Connections(10)
        async with connected(connections) as (protocol, caller):
            now = asyncio.get_running_loop().time()
            connections._judge(protocol, now)
            if begun:
                caller.asks(begun)
                await protocol.has_read.wait()
            caller.asks(REQUEST[len(begun) :])
            connections._judge(protocol, now + HEAD_S)
            said = await caller.hears()
            assert (b"", {"head_slow": 1}) == (said, connections.closed) if begun else said.endswith(b"ok")

    loop(run())


@LOOPS
def test_an_answer_that_is_still_to_be_read_is_not_cut_off(loop: Callable[..., None]) -> None:
    """Whoever reads it slowly gets all of it, though the connection's time is over by then."""

    async def run() -> None:
        async with connected(Connections(10)) as (protocol, caller):
            caller.asks(REQUEST.replace(b" / ", b" /large "))
            got = len(await caller.hears())
            assert protocol.transport.get_write_buffer_size()
            protocol.timeout_keep_alive_handler()
            while data := await caller.hears():
                got += len(data)
            assert got > LARGE

    loop(run())


@LOOPS
def test_the_end_of_the_server_answers_what_has_arrived(loop: Callable[..., None]) -> None:
    """A request that the event loop has not read yet, and then the connection is closed."""

    async def run() -> None:
        async with connected(Connections(10)) as (protocol, caller):
            caller.asks(REQUEST)
            await caller.hears()
            caller.asks(REQUEST)
            protocol.shutdown()
            assert (await caller.hears()).endswith(b"ok")
            assert b"" == await caller.hears()

    loop(run())


@LOOPS
def test_without_files_connections_end_all_the_same(loop: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """And whatever becomes of one that is looked at, others are looked at later."""

    def none_left(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "none left")

    async def run() -> None:
        connections = Connections(10)
        async with connected(connections) as (protocol, caller):
            caller.asks(REQUEST)
            await caller.hears()
            with monkeypatch.context() as patched:
                patched.setattr("service.connections.socket.socket", none_left)
                protocol.timeout_keep_alive_handler()
            assert b"" == await caller.hears()
        async with connected(connections) as (protocol, _):
            with monkeypatch.context() as patched:
                patched.setattr(protocol, "stands_still", none_left)
                connections._look()
            looked = asyncio.Event()
            monkeypatch.setattr(protocol, "stands_still", looked.set)
            await asyncio.wait_for(looked.wait(), 20.0)

    loop(run())
