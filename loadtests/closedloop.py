"""Closed-loop throughput: a number of connections, each of which asks again as soon as it is answered.

For comparing the cost of servers, not for latency under a given load: see `loadtests.openloop` for that. Uses wrk
where it is installed, else a generator of our own in a process of its own: `python -m loadtests.closedloop`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import numpy as np
import orjson
import uvloop

from loadtests.servers import ROOT, pinned

WRK_SCRIPT = Path(__file__).with_name("wrk_post.lua")
BUILT_IN = "built-in"
MOST_ERRORS = 0.001
"""Share of answers that may not be 200: a machine that stalls for longer than an SLO has a request refused."""
_END_OF_HEAD = b"\r\n\r\n"


class GeneratorError(Exception):
    """A closed-loop run went wrong. The message is one line."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """One closed-loop run: answers per second, seconds per answer, answers with a status other than 200."""

    requests: int
    per_s: float
    p50_s: float
    p99_s: float
    max_s: float
    errors: int


def generator_name() -> str:
    """What `measure` uses on this machine: `wrk` or `built-in`."""
    return "wrk" if shutil.which("wrk") else BUILT_IN


def measure(
    url: str, body: bytes, connections: int, seconds: int, cores: Sequence[int] = (), generator: str | None = None
) -> Throughput:
    """Ask `url` with JSON `body` over that many kept-alive connections, from a process on these cores.

    Raises `GeneratorError` where nothing is answered, or more than `MOST_ERRORS` of the answers are not 200.
    """
    generator = generator or generator_name()
    own = ("-m", "loadtests.closedloop", url, "--connections", str(connections), "--seconds", str(seconds))
    wrk = ("-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--timeout", "10s", "-s", str(WRK_SCRIPT), url)
    command = (sys.executable, *own) if generator == BUILT_IN else ("wrk", *wrk, "--", body.decode())
    with pinned(cores):
        done = subprocess.run(command, input=body, capture_output=True, check=False, cwd=ROOT)
    if done.returncode != 0:
        fault = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise GeneratorError(f"{generator} against {url}: {fault.splitlines()[-1] if fault else done.returncode}")
    result = Throughput(**orjson.loads(done.stdout.strip().splitlines()[-1]))
    if result.requests == 0 or result.errors > MOST_ERRORS * result.requests:
        raise GeneratorError(f"{url}: {result.errors} of {result.requests} answers were not 200")
    return result


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request on its way at a time; its methods are the event loop's to call."""

    def __init__(self, request: bytes, latencies_s: list[float], statuses: Counter[bytes]) -> None:
        self._request = request
        self._latencies_s = latencies_s
        self._statuses = statuses
        self._received = b""
        self._expected = 0
        self._sent_s = 0.0
        self._open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first time."""
        self._write = cast(asyncio.Transport, transport).write
        self._send()

    def data_received(self, data: bytes) -> None:
        """Note the answer once it is whole, and ask again."""
        received = self._received + data if self._received else data
        if not self._expected:
            head_ends = received.find(_END_OF_HEAD)
            if head_ends < 0:
                self._received = received
                return
            self._expected = head_ends + len(_END_OF_HEAD) + _content_length(received[:head_ends])
        if len(received) < self._expected:
            self._received = received
            return
        self._latencies_s.append(time.perf_counter() - self._sent_s)
        self._statuses[received[9:12]] += 1
        self._received, self._expected = b"", 0
        if self._open:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it as a fault unless it was to end."""
        if self._open:
            self._statuses[b"closed"] += 1

    def finish(self) -> None:
        """Send no more."""
        self._open = False

    def _send(self) -> None:
        self._sent_s = time.perf_counter()
        self._write(self._request)


def _content_length(head: bytes) -> int:
    lowered = head.lower()
    at = lowered.find(b"\r\ncontent-length:")
    if at < 0:
        raise GeneratorError("an answer has no content-length")
    return int(lowered[at + 17 :].split(b"\r\n", 1)[0])


async def drive(url: str, body: bytes, connections: int, seconds: float) -> Throughput:
    """Run the built-in generator in this event loop."""
    parts = urlsplit(url)
    head = f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
    request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    latencies_s: list[float] = []
    statuses: Counter[bytes] = Counter()
    loop = asyncio.get_running_loop()
    faults: list[str] = []
    loop.set_exception_handler(lambda _, context: faults.append(str(context.get("exception") or context["message"])))
    started_s = time.perf_counter()
    opened = [
        await loop.create_connection(
            lambda: Connection(request, latencies_s, statuses), parts.hostname or "localhost", parts.port or 80
        )
        for _ in range(connections)
    ]
    await asyncio.sleep(seconds)
    elapsed_s, count = time.perf_counter() - started_s, len(latencies_s)
    for transport, connection in opened:
        connection.finish()
        transport.close()
    if faults:
        raise GeneratorError(faults[0])
    ok = statuses.pop(b"200", 0)
    p50_s, p99_s, max_s = np.percentile(latencies_s or [0.0], [50, 99, 100]).tolist()
    return Throughput(ok, count / elapsed_s, p50_s, p99_s, max_s, statuses.total())


def main() -> None:
    """Read the body from standard input, write a `Throughput` as one line of JSON."""
    parser = argparse.ArgumentParser(description="closed-loop load with one POST body, read from standard input")
    parser.add_argument("url")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    body = sys.stdin.buffer.read()
    gc.disable()
    try:
        result = uvloop.run(drive(options.url, body, options.connections, options.seconds))
    except (OSError, GeneratorError) as error:
        raise SystemExit(f"closedloop: {options.url}: {error}") from None
    sys.stdout.write(orjson.dumps(asdict(result)).decode() + "\n")


if __name__ == "__main__":
    main()
