"""Traces as a collector gets them over OTLP/HTTP, and requests that do not notice what becomes of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

import service.collector
import service.traces
from loadtests.servers import free_port
from router.policies import policy_named
from router.sampling import fraction
from router.view import Policy
from service.configuration import SettingsError, load_settings
from service.origins import PURPOSE
from service.settings import Settings
from tests.scripted import TwoSteps
from tests.service.collector import Collector, attributes, collecting
from tests.service.conftest import eventually, sound_again
from tests.service.families import write_chain
from tests.service.grpc_caller import calling, sign_request
from tests.service.inprocess import serving
from tests.service.test_audits import metric
from variants.repository import Repository

INFER = "/v2/models/chain/infer"
SURE, UNSURE, BREAKS = (3.0, 0.0, 0.0, 0.0), (0.05, -3.0, 0.0, 0.0), (0.05, -1e7, 0.0, 0.0)
"""Rows of which the first exit is sure, of which it is not, and on which the second exit fails."""
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the family `chain`."""
    repository = Repository(tmp_path_factory.mktemp("models"))
    write_chain(repository, "chain")
    return repository.root


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """A collector for the tests that only read from it."""
    with collecting() as running:
        yield running


@contextmanager
def traced(
    models: Path, url: str, policy: Policy | None = None, share: float = 0.0, grpc_port: int | None = None
) -> Iterator[httpx.Client]:
    """A gateway that sends its spans every tenth of a second."""
    settings = Settings(
        models=models, slots=1, traces_endpoint=url, traces_share=share, tenants={"known": {}}, grpc_port=grpc_port
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        with serving(settings, policy or TwoSteps()) as client:
            yield client


@pytest.fixture(scope="module")
def rpc_port() -> int:
    """Where that gateway listens for gRPC."""
    return free_port()


@pytest.fixture(scope="module")
def client(models: Path, collector: Collector, rpc_port: int) -> Iterator[httpx.Client]:
    """A gateway that traces what its callers trace."""
    with traced(models, collector.url, grpc_port=rpc_port) as http:
        yield http


def ask(client: httpx.Client, row: tuple[float, ...], number: int, path: str = INFER, **headers: str) -> httpx.Response:
    """One request whose caller keeps the trace of that number."""
    body = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": row}]}
    return client.post(path, json=body, headers={"traceparent": caller(number), **headers})


def caller(number: int, flags: str = "01") -> str:
    return f"00-{trace_id(number)}-{PARENT}-{flags}"


def trace_id(number: int) -> str:
    return f"{TRACE[:-4]}{number:04x}"


def spans_of(collector: Collector, number: int) -> dict[str, list[Span]]:
    """The spans of that trace by name, once the request's own is there."""
    eventually(lambda: any(span.kind == Span.SPAN_KIND_SERVER for span in collector.trace(trace_id(number))), "traced")
    spans: dict[str, list[Span]] = {}
    for span in collector.trace(trace_id(number)):
        spans.setdefault(span.name, []).append(span)
    return spans


def test_a_request_is_a_span_with_children(client: httpx.Client, collector: Collector) -> None:
    """Its parent is the caller's span; queue, decide and compute follow one another in it; it says what happened."""
    tenant = {"x-gateway-inference-fairness-id": "known", "x-request-id": "mine"}
    response = ask(client, SURE, 1, **tenant)
    spans = spans_of(collector, 1)
    names = "POST /v2/models/{model}/infer", "queue", "decide", "compute"
    assert set(names) == set(spans)
    (request,), (queue,), (decide,), (compute,) = (spans[name] for name in names)
    assert (PARENT, "") == (request.parent_span_id.hex(), request.trace_state)
    assert response.headers["traceparent"] == f"00-{trace_id(1)}-{request.span_id.hex()}-01"
    assert {request.span_id} == {child.parent_span_id for child in (queue, decide, compute)}
    assert request.start_time_unix_nano == queue.start_time_unix_nano
    assert queue.end_time_unix_nano == decide.start_time_unix_nano
    assert decide.end_time_unix_nano == compute.start_time_unix_nano
    assert compute.end_time_unix_nano <= request.end_time_unix_nano
    said = attributes(request)
    expected = {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/v2/models/{model}/infer",
        "url.path": INFER,
        "pareto.request_id": "mine",
        "pareto.model": "chain",
        "pareto.variant": "small",
        "pareto.outcome": "served",
        "pareto.tenant": "known",
        "pareto.escalation": "confident",
    }
    assert expected == {name: said[name] for name in expected}
    assert attributes(compute) == {"pareto.variant": "small", "pareto.batch_rows": 1}
    assert request.status.code == 0
    assert ("pareto-gateway", {"/v1/traces"}) == (collector.resource["service.name"], collector.paths)


def test_a_call_over_grpc_is_a_span_with_its_conventions(
    client: httpx.Client, collector: Collector, rpc_port: int
) -> None:
    """Named by service and method, with gRPC's status; what is the gateway's own is as ever."""
    with calling(rpc_port) as caller_of:
        _, said = caller_of.infer(sign_request(3.0, model="chain"), [("traceparent", caller(20))])
        refused = caller_of.refusal(sign_request(3.0, model="chain", slo_ms=0.001), [("traceparent", caller(21))])
    name = "inference.GRPCInferenceService/ModelInfer"
    (served,), (shed,) = (spans_of(collector, number)[name] for number in (20, 21))
    assert said["traceparent"] == f"00-{trace_id(20)}-{served.span_id.hex()}-01"
    assert refused[0] == "RESOURCE_EXHAUSTED"
    expected = {"rpc.system": "grpc", "rpc.service": name.partition("/")[0], "rpc.method": "ModelInfer"}
    for span, status, outcome in ((served, 0, "served"), (shed, 8, "rejected_infeasible")):
        about = {**expected, "rpc.grpc.status_code": status, "pareto.outcome": outcome}
        told = attributes(span)
        assert about == {key: told[key] for key in about}
        assert not [key for key in told if key.startswith(("http.", "url."))]
        assert span.status.code == 0


def test_an_escalation_is_a_span_with_its_own_queue_and_batch(client: httpx.Client, collector: Collector) -> None:
    """It begins where the first answer was there, and ends with the better one's."""
    assert ask(client, UNSURE, 2).headers["x-route-path"] == "small,large"
    spans = spans_of(collector, 2)
    (escalate,) = spans["escalate"]
    first, second = spans["compute"]
    assert ("small", "large") == tuple(attributes(span)["pareto.variant"] for span in (first, second))
    assert escalate.span_id == second.parent_span_id
    ends = escalate.start_time_unix_nano, escalate.end_time_unix_nano
    assert (first.end_time_unix_nano, second.end_time_unix_nano) == ends
    assert {"pareto.from_variant": "small", "pareto.to_variant": "large"} == attributes(escalate)


@pytest.mark.parametrize(
    ("number", "row", "path", "headers", "status", "fault"),
    [
        (3, BREAKS, "/v2/models/chain/versions/large/infer", {}, 500, True),
        (4, SURE, INFER, {"x-slo-latency-ms": "0.001"}, 429, False),
    ],
    ids=["failed", "shed"],
)
def test_only_faults_of_the_server_are_errors(
    client: httpx.Client,
    collector: Collector,
    number: int,
    row: tuple[float, ...],
    path: str,
    headers: dict[str, str],
    status: int,
    fault: bool,
) -> None:
    """A model that fails sets the span's status and says why; a request that is refused has a reason and no error."""
    response = ask(client, row, number, path, **headers)
    sound_again(client, "chain", "large")
    (request,) = (span for name, spans in spans_of(collector, number).items() if " " in name for span in spans)
    assert (status, status) == (response.status_code, attributes(request)["http.response.status_code"])
    assert fault == (request.status.code == 2) == ("error.type" in attributes(request))
    assert request.span_id.hex() == response.headers["traceparent"].split("-")[2]


def test_a_better_variant_that_fails_is_an_error_of_its_span(client: httpx.Client, collector: Collector) -> None:
    """The request was answered all the same."""
    assert ask(client, BREAKS, 5).status_code == 200
    sound_again(client, "chain", "large")
    spans = spans_of(collector, 5)
    assert [2] == [span.status.code for span in spans["escalate"]]
    assert {0} == {span.status.code for name in spans for span in spans[name] if name != "escalate"}


def test_a_caller_that_does_not_keep_its_trace_is_not_traced(client: httpx.Client, collector: Collector) -> None:
    """Its header comes back as it was sent, and no span is made, nor for a caller without a trace."""
    body = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": SURE}]}
    answered = client.post(INFER, json=body, headers={"traceparent": caller(6, "00")})
    assert caller(6, "00") == answered.headers["traceparent"]
    assert "traceparent" not in client.post(INFER, json=body).headers
    ask(client, SURE, 7)
    spans_of(collector, 7)
    assert [] == collector.trace(trace_id(6))


def test_a_share_of_the_others_is_drawn_by_their_ids(models: Path) -> None:
    """Those whose ids fall below the share have a trace of their own, which answers name; at the end all have come."""
    body = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": SURE}]}
    named = {}
    with collecting() as collector, traced(models, collector.url, policy_named("fastest"), 0.3) as client:
        for number in range(60):
            answer = client.post(INFER, json=body, headers={"x-request-id": f"r-{number}"})
            if "traceparent" in answer.headers:
                named[f"r-{number}"] = answer.headers["traceparent"].split("-")[1]
    roots = [span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER]
    assert {f"r-{number}" for number in range(60) if fraction(f"r-{number}", PURPOSE) < 0.3} == set(named)
    assert named == {attributes(span)["pareto.request_id"]: span.trace_id.hex() for span in roots}
    assert {b""} == {span.parent_span_id for span in roots}


def test_a_collector_that_hangs_costs_spans_alone(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are answered, so many spans wait and no more, and the replica ends all the same."""
    monkeypatch.setattr(service.traces, "MOST_WAITING", 64)
    monkeypatch.setattr(service.traces, "BATCH", 32)
    monkeypatch.setattr(service.traces, "FLUSH_S", 0.05)
    with collecting() as collector:
        collector.hangs = True
        with traced(models, collector.url, policy_named("fastest"), 1.0) as client:
            ask(client, SURE, 8)
            assert collector.called.wait(20.0)
            answers = [ask(client, SURE, number).status_code for number in range(100, 150)]
            dropped = metric(client, "pareto_trace_spans_total", result="dropped")
    assert {200} == set(answers)
    # All but those that wait, and those of the batches that were on their way.
    assert 50 * 4 - 64 - 4 <= dropped <= 50 * 4
    assert [] == collector.spans


def test_a_collector_that_is_away_is_one_line_in_the_log(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    """However many batches it does not take; when it takes them again, that is said as well."""
    caplog.set_level(logging.INFO)
    with collecting() as collector, traced(models, collector.url, policy_named("fastest")) as client:
        collector.status = 400
        for number in range(20, 23):
            lost = metric(client, "pareto_trace_spans_total", result="failed")
            ask(client, SURE, number)
            eventually(lambda: metric(client, "pareto_trace_spans_total", result="failed") > lost, "not taken")  # noqa: B023 - asked at once
        collector.status = 200
        ask(client, SURE, 23)
        spans_of(collector, 23)
        eventually(lambda: metric(client, "pareto_trace_spans_total", result="exported") == 4.0, "taken")
    said = [record for record in caplog.records if record.name.startswith(("pareto.traces", "opentelemetry"))]
    assert ["WARNING", "INFO"] == [record.levelname for record in said]
    assert "12 were lost" in said[1].getMessage()


@pytest.mark.parametrize(
    ("endpoint", "fault"),
    [
        ("localhost:4318", "expected a URL such as http://localhost:4318, got 'localhost:4318'"),
        ("http://user:secret@away", "put credentials into OTEL_EXPORTER_OTLP_HEADERS"),
        ("http://away:port", "expected a URL such as http://localhost:4318, got 'http://away:port'"),
    ],
)
def test_what_is_no_collector_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch, endpoint: str, fault: str) -> None:
    """With the variable that names it, and never with a password."""
    monkeypatch.setenv("PARETO_CONFIG", "")
    monkeypatch.setenv("PARETO_TRACES_ENDPOINT", endpoint)
    with pytest.raises(SettingsError) as raised:
        load_settings()
    (line,) = str(raised.value).splitlines()
    assert line.startswith("traces_endpoint (PARETO_TRACES_ENDPOINT): ")
    assert fault in line
    assert "secret" not in line


def test_a_missing_exporter_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install."""
    monkeypatch.setattr(service.collector, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"in a checkout pip install -e '\.\[traces\]'"):
        Settings(traces_endpoint="http://localhost:4318")


def test_traces_need_somewhere_to_go() -> None:
    """A share without an endpoint is a fault, not silence."""
    with pytest.raises(ValueError, match="there is no traces_endpoint"):
        Settings(traces_share=0.1)
