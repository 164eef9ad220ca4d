"""Bounds of connections, on a real server with small ones: how many, how large a head may be, how slow a caller."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from router.policies import policy_named
from service.connections import Connections
from service.settings import Settings
from tests.service.conftest import eventually, sign_body
from tests.service.inprocess import serving

MOST = 8


@pytest.fixture(scope="module")
def client(models: Path) -> Iterator[httpx.Client]:
    """A gateway in this process that takes eight connections and gives callers a fifth of a second."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("service.connections.HEAD_S", 0.2)
        patched.setattr("service.connections.UNREAD_S", 0.2)
        patched.setattr("service.connections.LOOK_S", 0.05)
        patched.setattr("service.exchange.BODY_TIMEOUT_S", 0.3)
        settings = Settings(models=models, slots=1, max_connections=MOST)
        with serving(settings, policy_named("casc")) as http:
            yield http


def connected(client: httpx.Client) -> socket.socket:
    """A connection on which nothing has been said."""
    return socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=20.0)


def closed(client: httpx.Client, reason: str) -> float:
    """How many connections were closed for this reason."""
    lines = client.get("/metrics").text.splitlines()
    found = [line for line in lines if line.startswith("pareto_connections_closed_total") and f'"{reason}"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in found)


def rest(connection: socket.socket) -> bytes:
    """What comes until the connection is closed."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


@pytest.mark.parametrize(
    "begun",
    [b"", b"GET /livez HTTP/1.1\r\n", b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\nGET /livez HTTP/1.1\r\nhost"],
    ids=["nothing", "half a head", "half a head after a request"],
)
def test_a_head_that_does_not_come_is_not_waited_for(client: httpx.Client, begun: bytes) -> None:
    """The connection is closed, whether or not it has been used before, and one who asks as usual is not disturbed."""
    before = closed(client, "head_slow")
    with connected(client) as slow:
        slow.sendall(begun)
        rest(slow)
    assert before + 1 == closed(client, "head_slow")


def test_a_head_that_trickles_is_not_waited_for_either(client: httpx.Client) -> None:
    """A byte now and then does not help: the whole head has its time."""
    before = closed(client, "head_slow")
    with connected(client) as slow:
        slow.sendall(b"GET /livez HTTP/1.1\r\n")
        slow.settimeout(0.01)
        limit_s = time.monotonic() + 20.0
        while time.monotonic() < limit_s:
            try:
                slow.sendall(b"a: b\r\n")
                if slow.recv(100) == b"":
                    break
            except TimeoutError:
                continue
            except (ConnectionResetError, BrokenPipeError):
                break
    assert before + 1 == closed(client, "head_slow")


def test_an_idle_connection_is_kept(client: httpx.Client) -> None:
    """One that has been answered waits for the next request as long as it may."""
    before = closed(client, "head_slow")
    with connected(client) as kept, connected(client) as slow:
        kept.sendall(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n")
        assert b"200 OK" in kept.recv(65536)
        rest(slow)
        kept.sendall(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n")
        assert b"200 OK" in kept.recv(65536)
    assert before + 1 == closed(client, "head_slow")


@pytest.mark.parametrize(
    "begun",
    [
        b"GET /livez HTTP/1.1\r\nx: ",
        b"GET /",
        b"POST /v2/models/sign/infer HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nx: ",
    ],
    ids=["a header", "a path", "a trailer"],
)
def test_a_head_without_end_is_refused(client: httpx.Client, begun: bytes) -> None:
    """431 long before it fills the memory; so it is with what follows a body in chunks."""
    before = closed(client, "head_large")
    with connected(client) as endless:
        endless.sendall(begun)
        try:
            for _ in range(2000):
                endless.sendall(b"x" * 4096)
        except (ConnectionResetError, BrokenPipeError):
            pass
        rest(endless)
    assert before + 1 == closed(client, "head_large")


def test_what_is_large_but_no_head_is_taken(client: httpx.Client) -> None:
    """A body beyond the bound of heads, in one piece, in chunks, and two at once; and a head within it."""
    body = (
        b'{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 0, 0, 0]}]' + b" " * 300_000 + b"}"
    )
    url = "/v2/models/sign/versions/quick/infer"
    before = closed(client, "head_large")
    assert 200 == client.post(url, content=body).status_code
    assert 200 == client.post(url, content=(body[at : at + 1000] for at in range(0, len(body), 1000))).status_code
    assert 200 == client.post(url, json=sign_body(1.0), headers={"x-long": "y" * 50_000}).status_code
    with connected(client) as both:
        head = b"POST %s HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n" % (url.encode(), len(body))
        both.sendall((head + b"\r\n" + body) + (head + b"connection: close\r\n\r\n" + body))
        assert 2 == rest(both).count(b"HTTP/1.1 200 OK")
    assert before == closed(client, "head_large")


def test_a_body_that_nobody_wanted_is_not_read_for_ever(client: httpx.Client) -> None:
    """The refusal is there at once; who goes on sending what was refused, and then stops, is let go."""
    before = closed(client, "head_slow")
    with connected(client) as stubborn:
        stubborn.sendall(b"POST /v2/models/sign/infer HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999\r\n\r\n{")
        assert b"413" in stubborn.recv(65536)
        stubborn.sendall(b"{" * 1000)
        rest(stubborn)
    assert before + 1 == closed(client, "head_slow")


def test_a_body_that_trickles_is_408(client: httpx.Client) -> None:
    """It has its time as a whole; then the connection ends."""
    with connected(client) as slow:
        slow.sendall(b"POST /v2/models/sign/infer HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{")
        assert b"408 Request Timeout" in rest(slow)


def test_an_answer_that_nobody_reads_is_dropped(client: httpx.Client) -> None:
    """What a caller leaves unread does not stay in memory."""
    before = closed(client, "unread")
    with connected(client) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n" * 400)
        eventually(lambda: closed(client, "unread") > before, "it is dropped")


def test_one_connection_too_many_is_told_so(client: httpx.Client) -> None:
    """503 and closed; those that are there go on, and when one ends there is room."""
    before = closed(client, "full")
    with ExitStack() as stack:
        held = [stack.enter_context(connected(client)) for _ in range(MOST - 1)]
        with connected(client) as last:
            answer = rest(last)
        assert 200 == client.get("/livez").status_code
        del held
    assert b"503" in answer
    assert b"too many connections" in answer
    assert closed(client, "full") > before
    with connected(client) as another:
        another.sendall(b"GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert b"200 OK" in rest(another)


def test_no_more_are_taken_than_there_may_be_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that one too many is told so, instead of never being accepted; ports share what the process may open."""
    for files, ports, expected in (
        (1024, 1, 896),
        (1024, 3, 298),
        (100, 1, 1),
        (resource.RLIM_INFINITY, 3, 5000),
        (20_000, 2, 5000),
    ):
        monkeypatch.setattr("resource.getrlimit", lambda _, files=files: (files, files))
        assert expected == Connections(5000, ports).most


def test_websockets_are_refused(client: httpx.Client) -> None:
    """400, and the connection is closed and forgotten."""
    headers = {
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "eA==",
    }
    before = closed(client, "upgrade")
    assert 400 == httpx.get(f"{client.base_url}/events", headers=headers).status_code
    assert before + 1 == closed(client, "upgrade")
