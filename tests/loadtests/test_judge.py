"""The independent judge: the search for the highest valid rate, the connections, LoadGen against a real gateway."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.judge import LEAST_PER_S, MOST_PER_S, highest_valid, main
from loadtests.keepalive import Connections
from loadtests.samples import read_samples
from loadtests.servers import gateway, running
from variants.repository import Repository

Answer = tuple[int, dict[bytes, bytes], bytes]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@given(limit=st.floats(1.0, 40_000.0), first=st.floats(0.1, 100_000.0), precision=st.floats(0.01, 0.5))
def test_the_search_ends_at_the_highest_valid_rate(limit: float, first: float, precision: float) -> None:
    """Whatever the start: what is found is valid, and a rate that much higher is not, within the bounds."""
    tried: list[float] = []

    def run(rate: float) -> bool:
        tried.append(rate)
        return rate <= limit

    found = highest_valid(run, first, precision)
    assert len(tried) < 100
    if found == 0.0:
        assert limit < LEAST_PER_S
    else:
        assert found <= min(limit, MOST_PER_S)
        assert found >= min(limit / (1.0 + precision), MOST_PER_S) - 1e-9
        assert found in tried


REPLY = b"HTTP/1.1 200 OK\r\nX-Variant: small\r\ncontent-length: 2\r\n\r\nok"
ASK = b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n"


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[int]:
    """The port of a server with that handler of connections."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def ask(connections: Connections, count: int) -> list[Answer]:
    """Send so many requests at once and wait for all answers."""
    loop = asyncio.get_running_loop()
    answers: list[asyncio.Future[Answer]] = [loop.create_future() for _ in range(count)]
    for answer in answers:
        connections.ask(ASK, lambda *values, answer=answer: answer.set_result(values))
    return await asyncio.gather(*answers)


def test_connections_are_kept_and_shared() -> None:
    """More requests than connections wait for their turn; headers come in lower case, bodies whole."""
    opened = 0

    async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(REPLY[:30])
            await writer.drain()
            writer.write(REPLY[30:])

    async def run() -> None:
        async with listening(answering) as port:
            connections = Connections("127.0.0.1", port, most=3)
            for _ in range(2):
                answers = await ask(connections, 10)
                assert [(200, {b"x-variant": b"small", b"content-length": b"2"}, b"ok")] * 10 == answers
            connections.close()
        assert 3 == opened

    asyncio.run(run())


def test_what_is_not_answered_has_status_zero() -> None:
    """Servers that close, talk nonsense or are not there cost their requests and nothing else."""

    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async def babbling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"what?\r\n\r\n")
        await writer.drain()

    async def run() -> None:
        for handler in (closing, babbling):
            async with listening(handler) as port:
                connections = Connections("127.0.0.1", port, most=2)
                assert [(0, {}, b"")] * 5 == await ask(connections, 5)
                connections.close()
        nobody = Connections("127.0.0.1", port, most=2)
        assert [(0, {}, b"")] * 7 == await ask(nobody, 7)
        nobody.close()

    asyncio.run(run())


def test_a_stalled_server_is_given_up() -> None:
    """A connection that never answers is closed after its time, so that a run of LoadGen always ends."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def run() -> None:
        async with listening(silent) as port:
            connections = Connections("127.0.0.1", port, timeout_s=0.0)
            assert [(0, {}, b"")] * 2 == await ask(connections, 2)
            connections.close()

    asyncio.run(run())


def test_loadgen_judges_a_real_gateway(models: Path) -> None:
    """An easy target is valid; where the gateway refuses every row, LoadGen counts every one as late."""
    pytest.importorskip("mlperf_loadgen", reason="`make clients` installs LoadGen")
    from loadtests.loadgen import Target, judge

    samples = read_samples(Repository(models).open("tiny"))
    with running(gateway(models, {"PARETO_CONFIG": "", "PARETO_POLICY": "most-accurate"})) as server:
        easy = Target(server.url, samples, latency_s=10.0, slo_s=10.0)
        served = judge(easy, rate=400.0, duration_s=2.0)
        hopeless = judge(dataclasses.replace(easy, latency_s=0.05, slo_s=1e-6), 400.0, 0.5, least_queries=100)
    assert served.valid, served.why
    assert served.queries >= 1000
    assert (0.0, 0.0, 0.0) == (served.late, served.refused, served.failed)
    assert {"large": 1.0} == served.answers
    assert 1.0 == served.effective_accuracy
    assert not hopeless.valid
    assert (1.0, 1.0, 0.0) == (hopeless.late, hopeless.refused, hopeless.effective_accuracy)
    assert "percentile" in hopeless.why


def test_loadgens_log_is_read(tmp_path: Path) -> None:
    """Values by key, other lines skipped; a log without a result is told."""
    pytest.importorskip("mlperf_loadgen", reason="`make clients` installs LoadGen")
    from loadtests.loadgen import read_detail

    log = tmp_path / "detail.txt"
    entry = orjson.dumps({"key": "result_validity", "value": "VALID", "metadata": {}}).decode()
    log.write_text(f"noise\n:::MLLOG {entry}\n")
    assert {"result_validity": "VALID"} == read_detail(log)
    log.write_text("nothing\n")
    with pytest.raises(ValueError, match="LoadGen left no result"):
        read_detail(log)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--policies fastesst", "unknown policy 'fastesst'"),
        ("--duration 0", "--duration: expected a positive number, got 0.0"),
        ("--attempts 0", "--attempts: expected at least 1, got 0"),
        ("--family tiny --slo-ms 1", "an SLO of 1 ms an allowance of 2 ms leaves nothing"),
        ("--family other", "other"),
    ],
)
def test_what_cannot_be_judged_is_one_line(
    capsys: pytest.CaptureFixture[str], models: Path, arguments: str, says: str
) -> None:
    """The judge ends with exit code 1 and says why."""
    with pytest.raises(SystemExit) as end:
        main(["--models", str(models), *arguments.split()])
    assert 1 == end.value.code
    assert says in " ".join(capsys.readouterr().out.split())
