"""Connections of the generator: each request is sent once; whose fault it is that it has no answer is told apart."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from loadtests.harness.connections import Connections, NoAnswerError, NoSocketError
from tests.loadtests.scripted import ANSWER, REQUEST, Step, outcomes, scripted

LOST, WAIT_S = "connection lost", 10.0


@pytest.mark.parametrize(
    ("scripts", "times", "expected", "came"),
    [
        # Dropped after it was written, on a new connection or a kept one: the request is lost, and not sent again.
        ([[None]], 1, [LOST], [0]),
        ([[ANSWER, None], [ANSWER]], 2, ["answer", LOST], [0, 0]),
        ([[ANSWER, None], [ANSWER, ANSWER]], 3, ["answer", LOST, "answer"], [0, 0, 1]),
        ([[b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"]], 1, [LOST], [0]),
        ([[b"SSH-2.0-x\r\n"]], 1, ["not HTTP"], [0]),
    ],
)
def test_what_was_written_is_never_sent_again(
    scripts: Sequence[Sequence[Step]], times: int, expected: list[str], came: list[int]
) -> None:
    """As many requests reach the server as were asked for, whatever it does with them."""
    with scripted(*scripts) as server:
        connections = Connections(server.url)
        assert expected == outcomes(lambda: connections.exchange(REQUEST), times)
        assert (came, 0) == (server.requests, connections.repeated)
        connections.close()


def test_a_connection_that_the_server_closed_while_idle_loses_nothing() -> None:
    """Its end is seen before anything is written, also where no answer ever came on it."""
    with scripted([], [ANSWER], [ANSWER]) as server:
        connections = Connections(server.url)
        connections.warm(1, WAIT_S)
        assert server.closed.acquire(timeout=WAIT_S)
        assert ["answer"] == outcomes(lambda: connections.exchange(REQUEST), 1)
        assert server.closed.acquire(timeout=WAIT_S)
        assert ["answer"] == outcomes(lambda: connections.exchange(REQUEST), 1)
        assert ([1, 2], 0) == (server.requests, connections.repeated)


def test_what_a_kept_connection_does_not_take_goes_on_a_new_one_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where nothing of it was written; that is counted, and a second failure is the end of it."""
    refusing = set[int]()
    true_send = socket.socket.send

    def send(self: socket.socket, data: bytes) -> int:
        if self.getsockname()[1] in refusing:
            raise BrokenPipeError
        return true_send(self, data)

    with scripted([ANSWER], [ANSWER]) as server:
        connections = Connections(server.url)
        connections.warm(1, WAIT_S)
        (kept,) = connections._idle
        refusing.add(kept._socket.getsockname()[1])
        monkeypatch.setattr(socket.socket, "send", send)
        assert ["answer"] == outcomes(lambda: connections.exchange(REQUEST), 1)
        assert ([1], 1) == (server.requests, connections.repeated)


@pytest.mark.parametrize(("answer", "expected"), [(ANSWER, "answer"), (None, LOST)])
def test_who_answers_before_the_body_is_written_has_answered(answer: Step, expected: str) -> None:
    """And closes: the answer counts, or the request is lost where there is none; it is not sent again."""
    large = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 50000000\r\n\r\n" + bytes(50_000_000)
    with scripted([answer], [answer]) as server:
        connections = Connections(server.url)
        connections.warm(1, WAIT_S)
        assert [expected] == outcomes(lambda: connections.exchange(large), 1)
        assert ([0], 0, []) == (server.requests, connections.repeated, connections._idle)


def test_a_server_that_reads_no_further_is_not_asked_again() -> None:
    """A request that is too large for the buffers waits for it, as long as for an answer; then it has failed."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connections = Connections(f"http://127.0.0.1:{listening.getsockname()[1]}", patience_s=0.05)
        connections.warm(1, WAIT_S)
        assert ["no answer within 0.05 s"] == outcomes(lambda: connections.exchange(bytes(64 << 20)), 1)
    assert 0 == connections.repeated


def test_warming_keeps_what_it_got_and_resolves_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot be had does not cost the others, and the name is looked up a single time."""
    looked_up: list[object] = []
    true_lookup, true_connect = socket.getaddrinfo, socket.socket.connect
    tries = iter([False, True, False])

    def lookup(*at: Any, **how: Any) -> Any:
        looked_up.append(at)
        return true_lookup(*at, **how)

    def connect(self: socket.socket, place: tuple[str, int]) -> None:
        if next(tries, False):
            raise ConnectionRefusedError
        true_connect(self, place)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setattr(socket.socket, "connect", connect)
    with scripted(*[[ANSWER] * 3] * 3) as server:
        connections = Connections(server.url.replace("127.0.0.1", "localhost"))
        connections._resolve()
        connections._places = [place for place in connections._places if place[0] is socket.AF_INET]
        connections.warm(3, WAIT_S)
        assert 2 == len(connections._idle)
        assert ["answer"] * 3 == outcomes(lambda: connections.exchange(REQUEST), 3)
    assert 1 == len(looked_up)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EMFILE, NoSocketError),
        (errno.ENFILE, NoSocketError),
        (errno.EADDRNOTAVAIL, NoSocketError),
        (errno.ENOBUFS, NoSocketError),
        (errno.ECONNREFUSED, NoAnswerError),
        (errno.EHOSTUNREACH, NoAnswerError),
    ],
)
def test_a_machine_without_sockets_is_not_the_gateways_fault(
    monkeypatch: pytest.MonkeyPatch, number: int, kind: type[NoAnswerError]
) -> None:
    """Out of files or ports is told from a server that is not there."""

    def connect(self: socket.socket, place: tuple[str, int]) -> None:
        raise OSError(number, "scripted")

    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(NoAnswerError) as caught:
        Connections("http://127.0.0.1:9").exchange(REQUEST)
    assert kind is caught.type


def test_an_address_that_the_machine_does_not_speak_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """`localhost` may be `::1` where there is no IPv6: the other address counts, whatever becomes of it."""
    places = [(socket.AF_INET6, ("::1", 9, 0, 0)), (socket.AF_INET, ("127.0.0.1", 9))]
    numbers = {"::1": errno.EADDRNOTAVAIL, "127.0.0.1": errno.ECONNREFUSED}

    def connect(self: socket.socket, place: tuple[str, int]) -> None:
        raise OSError(numbers[place[0]], "scripted")

    monkeypatch.setattr(socket.socket, "connect", connect)
    connections = Connections("http://localhost:9")
    connections._places = list(places)
    assert ["no connection"] * 2 == outcomes(lambda: connections.exchange(REQUEST), 2)


def test_a_server_that_falls_silent_has_not_answered() -> None:
    """Also in the middle of its answer."""
    with scripted([b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", b""]) as server:
        connections = Connections(server.url, patience_s=0.05)
        assert ["no answer within 0.05 s"] == outcomes(lambda: connections.exchange(REQUEST), 1)
