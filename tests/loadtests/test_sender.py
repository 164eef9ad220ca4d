"""The benchmarks' own sender: what it sends, what it makes of what comes back, and what it does when nothing does."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import numpy as np
import pytest

from loadtests.samples import Samples
from loadtests.scoring import Fate
from loadtests.sender import Sender, prepared, read_answers
from loadtests.workload import Workload
from service.oip.decode import decode_infer
from service.oip.request import Limits
from tests.oip.specs import Spec, taking
from tests.scripted import SAMPLES

BODY = b'{"outputs": [{"name": "label", "shape": [1], "datatype": "BYTES", "data": ["positive"]}]}'
ANSWER = b"HTTP/1.1 200 OK\r\nX-Variant: large\r\nx-route-path: small,large\r\nserver-timing: total;dur=2\r\n"
REFUSAL = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\n\r\nno"


@contextmanager
def server(answer: bytes, *, closes: bool = False) -> Iterator[int]:
    """A port that gives every request the same answer, in two pieces; `closes`: each connection after one."""
    listening = socket.create_server(("127.0.0.1", 0))

    def talk(connection: socket.socket) -> None:
        with connection:
            while connection.recv(65536):
                connection.sendall(answer[:20])
                connection.sendall(answer[20:])
                if closes:
                    return

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.close()


def workload(count: int) -> Workload:
    return Workload(np.linspace(0.0, 0.3, count), np.full(count, 0.05), np.arange(count) % 4)


def whole(body: bytes) -> bytes:
    return ANSWER + b"Content-Length: %d\r\n\r\n" % len(body) + body


def test_requests_name_family_variant_and_slo() -> None:
    """What is sent is a whole request of the protocol."""
    first = prepared(workload(4), _with_inputs(), "h:1", "large")[0]
    head, _, body = first.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v2/models/scripted/versions/large/infer HTTP/1.1\r\nhost: h:1\r\n")
    assert b"x-slo-latency-ms: 50\r\n" in head
    assert head.endswith(b"content-length: %d" % len(body))


def test_large_rows_are_sent_raw() -> None:
    """A picture goes as bytes behind its JSON, as the server's own reader takes it; only the label is asked for."""
    pictures = np.random.default_rng(0).integers(0, 256, (4, 60, 60, 3), dtype=np.uint8)
    samples = replace(_with_inputs(), inputs={"image": pictures}, datatypes={"image": "UINT8"})
    head, _, body = prepared(workload(4), samples, "h:1")[1].partition(b"\r\n\r\n")
    (length,) = re.findall(rb"inference-header-content-length: (\d+)\r\n", head)
    signature = taking(Spec("image", "UINT8", (-1, 60, 60, 3)))
    request = decode_infer(body, int(length), signature, Limits(max_rows=1, max_elements=10_800))
    assert np.array_equal(pictures[1:2], request.inputs["image"])
    assert ["label"] == [output.name for output in request.outputs]
    assert not request.outputs[0].binary


@pytest.mark.parametrize("closes", [False, True])
def test_every_request_has_its_answer(closes: bool) -> None:
    """Also from a server that closes connections, which are not used again."""
    sent = workload(60)
    with server(whole(BODY), closes=closes) as port:
        sender = Sender("127.0.0.1", port, [b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n"] * len(sent))
        started_s, sending = sender.run(sent, connections=4)
    results = read_answers(sender.seen, started_s, sent, SAMPLES)
    assert {Fate.ANSWERED} == set(results.fate)
    assert ({"large"}, {1}, {True}) == (set(results.variant), set(results.label.tolist()), set(results.escalated))
    assert (results.latency_s > 0.0).all()
    assert len(sending.lag_s) == len(sent)


def test_refusals_and_nonsense_are_told_apart() -> None:
    """A 429 is a refusal; a 200 whose body is not an answer is a failure."""
    sent = workload(5)
    for answer, fate in ((REFUSAL, Fate.REFUSED), (whole(b"{}"), Fate.FAILED)):
        with server(answer) as port:
            sender = Sender("127.0.0.1", port, [b"POST / HTTP/1.1\r\n\r\n"] * len(sent))
            started_s, _ = sender.run(sent, connections=2)
        assert {fate} == set(read_answers(sender.seen, started_s, sent, SAMPLES).fate)


def _with_inputs() -> Samples:
    return Samples(
        SAMPLES.family,
        SAMPLES.labels,
        {"text": np.array([b"a", b"b", b"c", b"d"], dtype=object)},
        {"text": "BYTES"},
        SAMPLES.label,
        SAMPLES.size_class,
        SAMPLES.predicted,
        SAMPLES.confidence,
    )


def test_more_files_than_select_knows_may_be_open() -> None:
    """Connections numbered beyond 1024 are used again like any other."""
    with ExitStack() as stack:
        port = stack.enter_context(server(whole(BODY)))
        sender = Sender("127.0.0.1", port, [b"GET / HTTP/1.1\r\n\r\n"] * 8)
        for _ in range(1100):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        sender.run(workload(8), connections=1)
    assert all(seen is not None for seen in sender.seen)
