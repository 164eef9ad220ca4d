"""What callers over gRPC cannot do to others: by calls that say nothing, answers left unread, streams without end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from loadtests.servers import free_port
from service.rpc.bursts import Bursts
from service.rpc.health import SERVICE as HEALTH
from service.rpc.health import Health
from service.rpc.open_inference_pb2 import RepositoryModelLoadRequest, RepositoryModelLoadResponse
from service.rpc.reflection import PATH as REFLECTION
from service.settings import Settings
from tests.service.conftest import eventually
from tests.service.grpc_caller import Caller, calling, sign_request
from tests.service.http2_caller import raw_caller
from tests.service.inprocess import serving

CHECK = f"/{HEALTH}/Check"
MOST_CALLS = 40


@pytest.fixture(scope="module")
def port() -> int:
    """Where gRPC listens."""
    return free_port()


@pytest.fixture(scope="module")
def client(models: Path, port: int) -> Iterator[httpx.Client]:
    """A gateway in this process with little room, and nobody's patience but the test's own."""
    settings = Settings(
        models=models,
        slots=1,
        backlog=8,
        max_rows=8,
        max_body_bytes=256 * 1024,
        max_inflight_bytes=4 * 1024 * 1024,
        grpc_port=port,
        grpc_reflection=True,
        admin=True,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.rpc.server.SPARE_CALLS", MOST_CALLS - 8)
        with serving(settings) as http:
            yield http


@pytest.fixture
def caller(client: httpx.Client, port: int) -> Iterator[Caller]:
    """A caller as others are."""
    with calling(port) as one:
        yield one


def check(caller: Caller) -> tuple[str, str | None]:
    """Code and reason of a probe."""
    call = caller.start(CHECK, HealthCheckRequest(), HealthCheckResponse, timeout=10.0)
    call.exception()
    return call.code().name, dict(call.trailing_metadata() or ()).get("x-request-dropped-reason")


def errors(client: httpx.Client, status: int) -> float:
    """Protocol errors with that status so far."""
    name = f'pareto_protocol_errors_total{{status="{status}"}} '
    return sum(float(line.split()[-1]) for line in client.get("/metrics").text.splitlines() if line.startswith(name))


def test_calls_that_say_nothing_keep_nobody_from_being_answered(caller: Caller, port: int) -> None:
    """Neither probes nor inference wait for them."""
    with raw_caller(port) as silent:
        for path in (CHECK, "/inference.GRPCInferenceService/ModelInfer"):
            for _ in range(15):
                silent.begin(path)
        assert ("OK", None) == check(caller)
        assert "quick" == caller.infer(sign_request(1.0, variant="quick"), timeout=10.0)[0].model_version


def test_answers_that_nobody_reads_make_room_for_others(
    caller: Caller, client: httpx.Client, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While they are waited for, one call too many is told to come back, and that is counted."""
    before = errors(client, 503)
    with raw_caller(port) as unread:
        # More than there may be: one of them may come while a probe is open, and be refused in its place.
        for _ in range(2 * MOST_CALLS):
            unread.begin(CHECK, b"")
        eventually(lambda: check(caller) == ("UNAVAILABLE", "backlog_full"), "all calls are taken")
        assert errors(client, 503) > before
        monkeypatch.setattr("service.rpc.open_calls.UNREAD_S", 0.0)
        eventually(lambda: check(caller) == ("OK", None), "calls are given up")


def test_a_stream_of_questions_that_stop_ends(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reflection answers what there is, and does not wait for more for ever; what is no question is a 400."""
    monkeypatch.setattr("service.rpc.reading.SMALL_S", 0.2)
    done = threading.Event()
    ask = caller.channel.stream_stream(REFLECTION, bytes, bytes)

    def questions(first: bytes) -> Iterator[bytes]:
        yield first
        done.wait()

    ended = ask(questions(b"\x3a\x00"))
    assert len(list(ended)) == 1
    assert ended.code() is grpc.StatusCode.OK
    with pytest.raises(grpc.RpcError) as refused:
        list(ask(questions(b"\x07")))
    done.set()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_message_that_is_too_large_is_no_missing_message(caller: Caller, client: httpx.Client) -> None:
    """GRPC refuses it by itself, and nothing is counted as malformed."""
    before = errors(client, 400)
    assert "RESOURCE_EXHAUSTED" == caller.refusal(bytes(300 * 1024))[0]
    assert ("OK", None) == check(caller)
    assert before == errors(client, 400)


def test_what_is_administered_is_logged_by_name(caller: Caller, caplog: pytest.LogCaptureFixture) -> None:
    """Which model, and by whom."""
    with caplog.at_level(logging.INFO, "pareto.admin"):
        request = RepositoryModelLoadRequest(model_name="nobody")
        caller.start("RepositoryModelLoad", request, RepositoryModelLoadResponse).exception()
    assert "RepositoryModelLoad 'nobody' for 127.0.0.1" in [record.getMessage() for record in caplog.records]


def test_who_has_little_time_left_waits_for_no_others(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts is the time until the SLO or the timeout, whichever is first and wherever it is said."""
    left: list[float] = []

    async def gathered(_: Bursts, left_s: float) -> None:
        left.append(left_s)

    monkeypatch.setattr(Bursts, "gathered", gathered)
    slo, timeout = ("x-slo-latency-ms", "20000"), ("x-request-timeout-seconds", "15")
    for metadata in ((), (slo,), (slo, timeout)):
        caller.infer(sign_request(1.0, variant="quick"), metadata)
    caller.infer(sign_request(1.0, variant="quick", timeout=25_000_000), (slo,))
    caller.infer(sign_request(1.0, variant="quick"), (slo,), timeout=5.0)
    # The first has the SLO of the family; gRPC rounds deadlines up a little.
    assert left == [pytest.approx(said, abs=2.0) for said in (10.0, 20.0, 15.0, 0.0, 5.0)]


def test_nobody_waits_for_calls_that_are_refused_unread(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are no part of a burst: who may not ask cannot keep others waiting."""
    begun: list[str] = []
    begin = Bursts.begin

    def counted(bursts: Bursts) -> None:
        begun.append("call")
        begin(bursts)

    monkeypatch.setattr(Bursts, "begin", counted)
    assert "INVALID_ARGUMENT" == caller.refusal(sign_request(1.0), (("x-slo-latency-ms", "soon"),))[0]
    assert [] == begun
    caller.infer(sign_request(1.0, variant="quick"))
    assert ["call"] == begun


def test_thousands_of_calls_at_once_are_answered_or_told_why_not(
    client: httpx.Client, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them is ended as if its caller had hung up, also where they come faster than they are taken in."""
    go_on = threading.Event()
    status = Health._status

    def held_up(health: Health, service: str) -> int | None:
        go_on.wait()
        return status(health, service)

    monkeypatch.setattr(Health, "_status", held_up)
    with ExitStack() as stack:
        callers = [stack.enter_context(calling(port)) for _ in range(25)]
        calls = [one.start(CHECK, HealthCheckRequest(), HealthCheckResponse) for one in 100 * callers]
        go_on.set()
        codes = {(call.exception(), call.code().name)[1] for call in calls}
    assert codes <= {"OK", "UNAVAILABLE"}
