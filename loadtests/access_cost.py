"""What API keys, and the bounds of connections, cost a request (`make bench-access`): in process, without a socket.

The gate stands in front of an app that answers nothing; uvicorn's protocol, with and without bounds, is fed the bytes
of a request. Each way is measured in turns with the same without it, in processor time of the thread, and its cost is
the median of the differences. The headers are those of a client such as httpx, with the key last, where most put it.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from collections.abc import Awaitable, Callable
from hashlib import sha256
from secrets import token_urlsafe
from time import thread_time
from typing import Any

import uvicorn
import uvloop
from rich.console import Console
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from service.access import Key, Keys, Role
from service.connections import Connections, bounded
from service.exchange import AsgiApp, Message, Receive, Scope, Send, send_whole
from service.gate import Gate
from service.gateway import Gateway
from service.settings import Settings

TURNS = 41
REQUESTS = 3000
INFER = "/v2/models/sentiment/infer"

Turn = Callable[[], Awaitable[float]]
"""Measures some requests, and says how many microseconds one took."""


async def _answer_nothing(scope: Scope, receive: Receive, send: Send) -> None:
    return


async def _answer(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send_whole(send, 200, b"{}")


async def _receive() -> Message:
    return {}


async def _send(message: Message) -> None:
    return


def _headers(shown: str) -> list[tuple[bytes, bytes]]:
    return [
        (b"host", b"gateway.example:3000"),
        (b"accept", b"*/*"),
        (b"accept-encoding", b"gzip, deflate"),
        (b"connection", b"keep-alive"),
        (b"user-agent", b"python-httpx/0.28.1"),
        (b"content-type", b"application/json"),
        (b"content-length", b"2"),
        (b"x-slo-latency-ms", b"50"),
        (b"authorization", f"Bearer {shown}".encode()),
    ]


def _gate(keys: int, tenant: str = "") -> tuple[AsgiApp, str]:
    """A gate with so many keys, and the secret of the last one."""
    secrets = [token_urlsafe(32) for _ in range(keys)]
    gateway = Gateway(Settings(page=False))
    gateway.access.keys = Keys(
        Key(f"key-{number}", frozenset({Role.INFER}), tenant, sha256(secret.encode()).digest())
        for number, secret in enumerate(secrets)
    )
    return Gate(_answer_nothing, gateway), secrets[-1]


def _asked(app: AsgiApp, shown: str, path: str) -> Turn:
    scope = {"type": "http", "method": "POST", "path": path, "headers": _headers(shown)}

    async def turn() -> float:
        started_s = thread_time()
        for _ in range(REQUESTS):
            await app(dict(scope), _receive, _send)
        return (thread_time() - started_s) / REQUESTS * 1e6

    return turn


class _Transport(asyncio.Transport):
    """A socket that takes everything and says nothing."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        return

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def resume_reading(self) -> None:
        return

    def close(self) -> None:
        return


def _fed(protocol: type[HttpToolsProtocol]) -> Turn:
    head = b"".join(b"%s: %s\r\n" % header for header in _headers(token_urlsafe(32)))
    request = b"POST %s HTTP/1.1\r\n%s\r\n{}" % (INFER.encode(), head)

    async def turn() -> float:
        config = uvicorn.Config(_answer, log_config=None, access_log=False)
        connection = protocol(config, ServerState(), {})
        connection.connection_made(_Transport())
        started_s = thread_time()
        for _ in range(REQUESTS):
            connection.data_received(request)
            # The request's task runs in one go.
            await asyncio.sleep(0)
        took_s = thread_time() - started_s
        assert connection.cycle.response_complete, "each request was answered before the next one"
        connection.connection_lost(ConnectionError())
        return took_s / REQUESTS * 1e6

    return turn


async def measure() -> dict[str, list[float]]:
    """Microseconds that each way adds, by turn."""
    one, first = _gate(1)
    many, last = _gate(10_000)
    bound, owned = _gate(1, "acme")
    alone = _asked(_answer_nothing, first, INFER)
    ways: dict[str, tuple[Turn, Turn]] = {
        "one key": (_asked(one, first, INFER), alone),
        "ten thousand keys": (_asked(many, last, INFER), alone),
        "a key of a tenant": (_asked(bound, owned, INFER), alone),
        "keys, but a path that needs none": (_asked(one, first, "/readyz"), alone),
        "bounds of connections": (_fed(bounded(Connections(10))), _fed(HttpToolsProtocol)),
    }
    added: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(TURNS + 1):
        for way, (with_it, without) in ways.items():
            cost_us = -await without() + await with_it()
            if turn:
                added[way].append(cost_us)
    return added


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(prog="make bench-access", description=(__doc__ or "").splitlines()[0]).parse_args()
    console = Console(highlight=False)
    console.print(f"{'microseconds added to a request':<34} {'median':>6}   (middle half of {TURNS} turns)")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for way, added in runner.run(measure()).items():
            low, middle, high = statistics.quantiles(added, n=4)
            console.print(f"{way:<34} {middle:>6.2f}   ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
