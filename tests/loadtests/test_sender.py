"""The benchmarks' own sender: what it sends, what it makes of what comes back, and what it does when nothing does."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from urllib.parse import urlsplit

import numpy as np
import pytest

from loadtests.outcomes import Fate
from loadtests.samples import Samples
from loadtests.sender import Sender, prepared, read_answers
from loadtests.workload import Workload
from service.oip.decode import decode_infer
from service.oip.request import Limits
from tests.loadtests.scripted import scripted
from tests.oip.specs import Spec, taking
from tests.scripted import SAMPLES

BODY = b'{"outputs": [{"name": "label", "shape": [1], "datatype": "BYTES", "data": ["positive"]}]}'
ANSWER = b"HTTP/1.1 200 OK\r\nX-Variant: large\r\nx-route-path: small,large\r\nserver-timing: total;dur=2\r\n"
REQUEST = b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n"
ANSWERED = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
TOO_LARGE = b"HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
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


def whole(body: bytes, *, closes: bool = False) -> bytes:
    return ANSWER + b"Connection: close\r\n" * closes + b"Content-Length: %d\r\n\r\n" % len(body) + body


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
    """Also from a server that closes connections, and says so: they are not used again."""
    sent = workload(60)
    with server(whole(BODY, closes=closes), closes=closes) as port:
        sender = Sender("127.0.0.1", port, [REQUEST] * len(sent))
        started_s, sending = sender.run(sent, connections=4)
    results = read_answers(sender.seen, started_s, sent, SAMPLES)
    assert {Fate.ANSWERED} == set(results.fate)
    assert ({"large"}, {1}, {True}) == (set(results.variant), set(results.label.tolist()), set(results.escalated))
    assert (results.latency_s > 0.0).all()
    assert len(sending.lag_s) == len(sent)


def test_what_was_written_is_never_sent_again() -> None:
    """A kept connection that ends when the request is on it takes that with it, as a new one does."""
    with scripted([ANSWERED, None], [None]) as answering:
        at = urlsplit(answering.url)
        sender = Sender(at.hostname or "", at.port or 0, [REQUEST] * 3)
        sender.run(workload(3), connections=1)
    assert [True, False, False] == [seen is not None for seen in sender.seen]
    assert ([0, 0, 1], 0) == (answering.requests, sender.repeated)


def test_what_a_kept_connection_does_not_take_goes_on_a_new_one_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where nothing of it was written; that is counted."""
    true_send = socket.socket.send
    refused = list[int]()

    def send(self: socket.socket, data: bytes) -> int:
        if data == REQUEST and not refused:
            refused.append(self.fileno())
            raise BrokenPipeError
        return true_send(self, data)

    with server(whole(BODY)) as port:
        sender = Sender("127.0.0.1", port, [REQUEST])
        monkeypatch.setattr(socket.socket, "send", send)
        sender.run(workload(1), connections=1)
    assert (True, 1) == (sender.seen[0] is not None, sender.repeated)


@pytest.mark.parametrize("answer", [TOO_LARGE, REFUSAL, None])
def test_who_answers_before_the_body_is_written_has_answered(answer: bytes | None) -> None:
    """And closes: the answer counts, or the request is lost where there is none; it goes out once in any case."""
    large = b"POST / HTTP/1.1\r\ncontent-length: 50000000\r\n\r\n" + bytes(50_000_000)
    with scripted([answer], [answer], [ANSWERED]) as answering:
        at = urlsplit(answering.url)
        sender = Sender(at.hostname or "", at.port or 0, [large, large, REQUEST])
        sender.run(Workload(np.array([0.0, 0.1, 0.2]), np.full(3, 0.05), np.arange(3)), connections=1)
    assert [answer, answer, ANSWERED] == [seen and seen[1] for seen in sender.seen]
    assert ([0, 1, 2], 0) == (answering.requests, sender.repeated)


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
