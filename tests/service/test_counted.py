"""Whoever has an answer and asks finds it counted, though observers are told after answers are on their way."""

from __future__ import annotations

import socket
from pathlib import Path

import orjson
import pytest
from uvicorn.config import LoopFactoryType

from service.settings import Settings
from tests.service.conftest import sign_body
from tests.service.inprocess import serving

TIMES = 40
HOPELESS = "x-slo-ms: 0.001\r\n"
STATS = b"GET /v2/models/sign/stats HTTP/1.1\r\nhost: localhost\r\n\r\n"


def infer(headers: str) -> bytes:
    body = orjson.dumps(sign_body(1.0))
    head = f"POST /v2/models/sign/infer HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def read(stream: socket.SocketIO) -> bytes:
    """The body of the next answer on a connection."""
    length = 0
    while (line := stream.readline().strip().lower()) != b"":
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    found = b""
    while len(found) < length:
        found += stream.read(length - len(found)) or b""
    return found


def counted(statistics: bytes) -> int:
    """Requests that have ended, one way or the other."""
    of_all = [known["inference_stats"] for known in orjson.loads(statistics)["model_stats"]]
    return sum(stats["success"]["count"] + stats["fail"]["count"] for stats in of_all)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("headers", ["x-slo-ms: 1000\r\n", HOPELESS, ""], ids=["in time", "hopeless", "by default"])
def test_an_answer_is_counted_before_the_next_request(models: Path, loop: LoopFactoryType, headers: str) -> None:
    """The next one on the connection, be it sent after the answer or right behind the request."""
    pytest.importorskip(loop, reason="uvloop is not for every machine")
    with serving(Settings(models=models, slots=1), loop=loop) as client:
        address = (client.base_url.host, client.base_url.port or 0)
        with socket.create_connection(address) as connection, connection.makefile("rwb", buffering=0) as stream:
            before = counted(client.get("/v2/models/sign/stats").content)
            found = []
            for _ in range(TIMES):
                stream.write(infer(headers))
                read(stream)
                stream.write(STATS)
                found.append(counted(read(stream)))
                stream.write(infer(headers) + STATS)
                read(stream)
                found.append(counted(read(stream)))
    assert [before + done for done in range(1, 2 * TIMES + 1)] == found
