"""A sender that costs little: the open-loop generator of the benchmarks, some 50 us a request instead of locust's 200.

A batch of eight answers comes back at once; a generator that takes half a millisecond for each would add four to the
last one's latency and call them the server's. So prepared bytes are sent, what comes back is noted with its time, a
piece between two sends, and answers are read only after the run. One thread does both: two would wait for each other's
interpreter lock.

`python -m loadtests.sender --url http://HOST:PORT --models DIR --family NAME --workload W.npz --report R.json
--answers A.npz` writes the score, and what became of each request.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from loadtests import oip
from loadtests.generator_faults import Sending
from loadtests.outcomes import Fate, Reply, Results
from loadtests.report import score_json, write_json
from loadtests.samples import Samples, read_samples
from loadtests.scoring import score
from loadtests.workload import Workload
from variants.repository import Repository

LEAD_S = 0.3
PATIENCE_S = 20.0
"""After the last request was sent, answers are waited for this long."""
MOST_OPEN = 1024
_TIMEOUT_S = 5.0
"""For connecting, and for writing one request."""

_HEAD_END = b"\r\n\r\n"

Place = tuple[str, int]
"""Host and port."""


class Sender:
    """Sends the prepared requests of a workload; `seen` has for each index when its answer was whole, and its bytes.

    With `places`, each request goes to the host and port of its index.
    """

    def __init__(self, host: str, port: int, requests: Sequence[bytes], places: Sequence[Place] = ()) -> None:
        self._places = places or [(host, port)] * len(requests)
        self._requests = requests
        self._free: dict[Place, deque[socket.socket]] = {known: deque() for known in self._places}
        self._place_of: dict[int, Place] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._index: dict[int, int] = {}
        self._parts: dict[int, bytes] = {}
        self._spent: set[int] = set()
        self._epoll = select.epoll()
        self.seen: list[tuple[float, bytes] | None] = [None] * len(requests)
        self.started_s = math.inf
        """When the first request is or was due, on `time.perf_counter`; infinite before the run."""
        self.stopped = False
        """Set from another thread to send nothing more and wait for nothing."""
        self.enough = False
        """Set from another thread to send nothing more, and wait for the answers that are due."""
        self.sent = 0
        """So many of the requests have been sent, the first ones."""
        self.repeated = 0
        """So many went on a new connection, because a kept one took nothing of them."""

    def run(self, workload: Workload, connections: int = 64) -> tuple[float, Sending]:
        """Send everything and wait for the answers; returns when it started, and how the sending went."""
        for place, free in self._free.items():
            free.extend(self._connect(place) for _ in range(max(1, connections // len(self._free))))
        lag_s = np.zeros(len(workload))
        most = 0
        gc.collect()
        gc.disable()
        started_s = self.started_s = time.perf_counter() + LEAD_S
        cpu_s = time.process_time()
        try:
            for index, due_s in enumerate((started_s + workload.arrival_s).tolist()):
                while (rest_s := due_s - time.perf_counter()) > 0.0:
                    self._receive(rest_s)
                if self.stopped or self.enough:
                    break
                lag_s[index] = -rest_s
                self.sent = index + 1
                if len(self._index) < MOST_OPEN:
                    self._send(index)
                    most = max(most, len(self._index))
            span_s = time.perf_counter() - started_s + LEAD_S
            cpu_share = (time.process_time() - cpu_s) / span_s
            until_s = time.perf_counter() + PATIENCE_S
            while self._index and not self.stopped and (rest_s := until_s - time.perf_counter()) > 0.0:
                self._receive(rest_s)
        finally:
            gc.enable()
            for connection in self._sockets.values():
                connection.close()
            self._epoll.close()
        return started_s, Sending(lag_s, cpu_share, most)

    def _connect(self, place: Place) -> socket.socket:
        connection = socket.create_connection(place, timeout=_TIMEOUT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sockets[connection.fileno()] = connection
        self._place_of[connection.fileno()] = place
        self._epoll.register(connection.fileno(), select.EPOLLIN)
        return connection

    def _send(self, index: int) -> None:
        """Write a request once; a kept connection that takes nothing of it has not brought it anywhere."""
        place = self._places[index]
        kept = self._idle(place)
        if kept is not None and not self._takes(kept, index):
            kept = None
            self.repeated += 1
        if kept is None:
            self._takes(self._connect(place), index)

    def _takes(self, connection: socket.socket, index: int) -> bool:
        """Write a request; False where the connection is closed and took nothing of it.

        What it took a part of may have arrived, and may have been answered by who refuses it unread: `_receive` finds
        that answer, or the end.
        """
        number = connection.fileno()
        self._index[number] = index
        whole = left = memoryview(self._requests[index])
        until_s = time.perf_counter() + _TIMEOUT_S
        try:
            left = left[connection.send(left) :]
            while left:
                if time.perf_counter() > until_s:
                    raise TimeoutError
                left = left[connection.send(left) :]
        except OSError as error:
            # Who does not read for so long has been asked all the same.
            if len(left) == len(whole) and not isinstance(error, TimeoutError):
                self._lost(number)
                return False
            self._spent.add(number)
        return True

    def _idle(self, place: Place) -> socket.socket | None:
        """The connection to that place that was used last and that the server has not closed since."""
        while free := self._free[place]:
            connection = free.pop()
            if connection.fileno() < 0:
                continue
            # Not `select`, which knows no files beyond the first 1024.
            asked = select.poll()
            asked.register(connection, select.POLLIN)
            if not asked.poll(0):
                return connection
            # Closed, or it says something that nobody asked for.
            self._lost(connection.fileno())
        return None

    def _receive(self, within_s: float) -> None:
        """Wait for so long, or until something comes, and take one piece of it: the next request may be due."""
        # `select` counts microseconds where `epoll` counts milliseconds.
        if not select.select([self._epoll], [], [], within_s)[0]:
            return
        for number, _ in self._epoll.poll(0.0, 1):
            try:
                data = self._sockets[number].recv(65536)
            except OSError:
                data = b""
            seen_s = time.perf_counter()
            if not data:
                self._lost(number)
                continue
            if number in self._parts:
                data = self._parts.pop(number) + data
            if _is_whole(data):
                index = self._index.pop(number, None)
                if index is not None:
                    self.seen[index] = (seen_s, data)
                if _stays(data) and number not in self._spent:
                    self._free[self._place_of[number]].append(self._sockets[number])
                else:
                    self._lost(number)
            else:
                self._parts[number] = data

    def _lost(self, number: int) -> None:
        """The connection is gone, and with it the request that was on it: it stays without an answer."""
        self._index.pop(number, None)
        self._parts.pop(number, None)
        self._spent.discard(number)
        if (connection := self._sockets.pop(number, None)) is not None:
            self._epoll.unregister(number)
            connection.close()


def _is_whole(data: bytes) -> bool:
    head = data.find(_HEAD_END)
    if head < 0:
        return False
    at = data.lower().find(b"\ncontent-length:", 0, head + 2)
    if at < 0:
        return True
    length = int(data[at + 16 : data.index(b"\r", at)])
    return len(data) >= head + len(_HEAD_END) + length


def _stays(data: bytes) -> bool:
    """Whether the server keeps the connection open behind this answer."""
    return b"\nconnection: close\r" not in data[: data.find(_HEAD_END) + 1].lower()


def prepared(
    workload: Workload, samples: Samples, host: str, variant: str | None = None, named: str = ""
) -> list[bytes]:
    """The bytes of every request of a workload; with `named`, each has this and its index as its id."""
    path = oip.infer_path(samples.family, variant)
    messages = [oip.infer_message(samples, row) for row in range(len(samples))]
    requests = []
    for index, (sample, slo_s) in enumerate(zip(workload.sample.tolist(), workload.slo_s.tolist(), strict=True)):
        headers, body = messages[sample]
        if named:
            headers = {**headers, oip.ID_HEADER: f"{named}{index}"}
        own = {"host": host, **headers, "accept-encoding": "identity", oip.SLO_HEADER: oip.slo_text(slo_s)}
        requests.append(oip.request_line(path) + oip.header_lines(own) + oip.request_end(body))
    return requests


def read_answers(
    seen_bytes: Sequence[tuple[float, bytes] | None], started_s: float, workload: Workload, samples: Samples
) -> Results:
    """What became of each request, from when its answer was whole and the bytes that came back (`Sender.seen`)."""
    results = Results.pending(len(workload))
    index_of = {label: index for index, label in enumerate(samples.labels)}
    for index, (seen, arrival_s) in enumerate(zip(seen_bytes, workload.arrival_s.tolist(), strict=True)):
        if seen is None:
            results.take(index, Reply(Fate.FAILED, reason="no answer"), math.inf)
        else:
            results.take(index, read_answer(seen[1], index_of), seen[0] - started_s - arrival_s)
    return results


def read_answer(data: bytes, index_of: Mapping[str, int]) -> Reply:
    """What the bytes of one answer say; `index_of` numbers labels."""
    head, _, body = data.partition(_HEAD_END)
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return oip.reply_of(int(status.split(" ")[1]), headers, body, index_of)


def go_first() -> None:
    """Be as punctual as on a machine of its own, where the system allows it: on its core a server may run as well."""
    with suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def main() -> None:
    """Send one workload; ends with one line where that cannot be done."""
    parser = argparse.ArgumentParser(prog="sender", description="one workload, sent open loop")
    parser.add_argument("--url", required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--family", required=True)
    parser.add_argument("--variant")
    parser.add_argument("--workload", type=Path, required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--answers", type=Path, required=True)
    options = parser.parse_args()
    workload = Workload.load(options.workload)
    samples = read_samples(Repository(options.models).open(options.family))
    at = urlsplit(options.url)
    sender = Sender(at.hostname or "127.0.0.1", at.port or 80, prepared(workload, samples, at.netloc, options.variant))
    go_first()
    try:
        started_s, sending = sender.run(workload)
    except OSError as error:
        sys.exit(f"sender: {options.url}: {error}")
    results = read_answers(sender.seen, started_s, workload, samples)
    write_json(options.report, score_json(score(workload, samples.label, results, sending)))
    results.save(options.answers)


if __name__ == "__main__":
    main()
