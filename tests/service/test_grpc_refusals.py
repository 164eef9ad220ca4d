"""Refusals over gRPC, calls that end before their answer, and what is asked beside inference."""

from __future__ import annotations

import gzip

import grpc
import httpx
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.empty_pb2 import Empty
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from router.words import Outcome, Reason
from service.oip.errors import dropped
from service.rpc.calls import code_of, refusal_metadata
from service.rpc.health import SERVICE as HEALTH
from service.rpc.open_inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    RepositoryModelLoadRequest,
    RepositoryModelLoadResponse,
)
from service.rpc.server import INFERENCE
from tests.service.conftest import eventually, samples, sound_again
from tests.service.grpc_caller import Caller, Metadata, labels, sign_request, trailing

FAILING = sign_request(1.0, variant="quick")
FAILING.inputs[0].contents.fp32_contents[1] = -1e7
LATE = {"when_late": "serve"}

REFUSALS: dict[str, tuple[ModelInferRequest | bytes, Metadata, str, str | None]] = {
    "no_message": (b"\x07", (), "INVALID_ARGUMENT", None),
    "bad_metadata": (sign_request(1.0), (("x-slo-latency-ms", "soon"),), "INVALID_ARGUMENT", None),
    "bad_parameter": (sign_request(1.0, slo_ms=-1), (), "INVALID_ARGUMENT", None),
    "floor_out_of_reach": (sign_request(1.0, min_accuracy=0.99), (), "INVALID_ARGUMENT", None),
    "no_rows": (ModelInferRequest(model_name="sign"), (), "INVALID_ARGUMENT", None),
    "unknown_model": (sign_request(1.0, model="nobody"), (), "NOT_FOUND", None),
    "no_model": (sign_request(1.0, model=""), (), "NOT_FOUND", None),
    "unknown_variant": (sign_request(1.0, variant="nobody"), (), "NOT_FOUND", None),
    "hopeless_slo": (sign_request(1.0, variant="slow", slo_ms=1), (), "RESOURCE_EXHAUSTED", "deadline_infeasible"),
    "model_fails": (FAILING, (), "INTERNAL", "executor_error"),
    "too_many_bytes": (bytes(17 * 1024 * 1024), (), "RESOURCE_EXHAUSTED", None),
    "unfolds": (b"\x2a\x00" * 100_000, (), "RESOURCE_EXHAUSTED", None),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_every_refusal_has_its_status_and_its_reason(caller: Caller, client: httpx.Client, name: str) -> None:
    """The code is gRPC's for the HTTP status; the reason stands in the metadata. Coming back helps none of these."""
    request, metadata, code, reason = REFUSALS[name]
    got, details, said = caller.refusal(request, [*metadata, ("x-request-id", "abc")])
    assert (got, said.get("x-request-dropped-reason")) == (code, reason)
    assert details
    assert "Traceback" not in details
    assert {"retry-after", "grpc-retry-pushback-ms"}.isdisjoint(said)
    # Of what gRPC itself refuses no id is known.
    assert said.get("x-request-id") == (None if name == "too_many_bytes" else "abc")
    sound_again(client, "sign", "quick")


@pytest.mark.parametrize(
    ("outcome", "reason", "code", "word"),
    [
        (Outcome.REJECTED_INFEASIBLE, Reason.QUARANTINED, "UNAVAILABLE", "quarantined"),
        (Outcome.FAILED, Reason.EXECUTOR_LOST, "UNAVAILABLE", "executor_error"),
        (Outcome.FAILED, Reason.CRASHED, "INTERNAL", "executor_error"),
        (Outcome.FAILED, Reason.HUNG, "INTERNAL", "executor_error"),
        (Outcome.FAILED, Reason.OUT_OF_MEMORY, "INTERNAL", "executor_error"),
        (Outcome.FAILED, Reason.WRONG_OUTPUT, "INTERNAL", "executor_error"),
    ],
)
def test_what_became_of_a_broken_variant_has_its_code(outcome: Outcome, reason: Reason, code: str, word: str) -> None:
    """UNAVAILABLE is for retry policies: where waiting helps, and not where the request breaks variants."""
    refused = dropped(outcome, reason)
    said = dict(refusal_metadata(refused))
    assert (code_of(refused.status).name, said[b"x-request-dropped-reason"].decode()) == (code, word)
    assert (b"grpc-retry-pushback-ms" in said) == (code == "UNAVAILABLE")


def test_a_hard_timeout_in_a_parameter_is_told(caller: Caller) -> None:
    """Microseconds, as Triton has them; a scheduler that knows it cannot be kept says so at once."""
    request = sign_request(*[1.0] * 4, variant="slow", timeout=20_000, when_late="serve")
    code, _, said = caller.refusal(request)
    assert (code, said["x-request-dropped-reason"]) in (
        ("DEADLINE_EXCEEDED", "timeout"),
        ("RESOURCE_EXHAUSTED", "deadline_infeasible"),
    )


def test_a_deadline_ends_the_request_as_expired(caller: Caller, client: httpx.Client) -> None:
    """The client gives the call up by itself; the record says why, and says it once."""
    before = _ended(client)
    request = sign_request(*[1.0] * 40, variant="slow", when_late="serve")
    code, _, _ = caller.refusal(request, [("x-gateway-inference-objective", "batch")], timeout=0.2)
    assert code == "DEADLINE_EXCEEDED"
    eventually(lambda: _ended(client) != before, "the request has an outcome")
    assert _ended(client) == {**before, "expired": before["expired"] + 1}


def test_a_call_that_is_cancelled_cancels_its_request(caller: Caller, client: httpx.Client) -> None:
    """The record says cancelled, once, and nothing else is disturbed."""
    before = _ended(client)
    patient = [("x-gateway-inference-objective", "batch")]
    call = caller.start("ModelInfer", sign_request(*[1.0] * 40, variant="slow"), ModelInferResponse, patient)
    eventually(lambda: "pareto_unfinished_requests 1.0" in client.get("/metrics").text, "the request is accepted")
    call.cancel()
    eventually(lambda: _ended(client) != before, "the request has an outcome")
    assert _ended(client) == {**before, "cancelled": before["cancelled"] + 1}
    assert labels(caller.infer(sign_request(1.0, variant="quick"))[0]) == ["yes"]


def _ended(client: httpx.Client) -> dict[str, float]:
    outcomes = ("expired", "cancelled", "served", "served_late", "failed")
    return {outcome: samples(client, model="sign", outcome=outcome) for outcome in outcomes}


def test_requests_are_counted_as_those_over_http(caller: Caller, client: httpx.Client) -> None:
    """One record for each that was taken, and a protocol error for each that was not."""
    errors = 'pareto_protocol_errors_total{status="404"}'
    before = samples(client, model="sign", outcome="served"), _metric(client, errors)
    caller.infer(sign_request(1.0, variant="quick"))
    caller.refusal(sign_request(1.0, model="nobody"))
    eventually(lambda: samples(client, model="sign", outcome="served") == before[0] + 1, "it is counted")
    assert _metric(client, errors) == before[1] + 1


def _metric(client: httpx.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return next((float(line.split()[-1]) for line in lines if line.startswith(f"{name} ")), 0.0)


def test_a_compressed_request_is_understood_and_a_bomb_is_not(caller: Caller) -> None:
    """The bound on a message holds for what it unfolds to."""
    infer = caller.channel.unary_unary(
        f"/{INFERENCE}/ModelInfer", ModelInferRequest.SerializeToString, ModelInferResponse.FromString
    )
    assert labels(infer(sign_request(1.0), compression=grpc.Compression.Gzip)) == ["yes"]
    bomb = caller.channel.unary_unary(f"/{INFERENCE}/ModelInfer", bytes, ModelInferResponse.FromString)
    heavy = bytes(64 * 1024 * 1024)
    assert len(gzip.compress(heavy, 1)) < 16 * 1024 * 1024
    with pytest.raises(grpc.RpcError) as refused:
        bomb(heavy, compression=grpc.Compression.Gzip)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    "path",
    [f"/{INFERENCE}/ModelConfig", f"/{INFERENCE}/SystemSharedMemoryStatus", "/other.Service/Method", "/"],
)
def test_what_there_is_not_is_unimplemented(caller: Caller, path: str) -> None:
    """With a line that says where to look."""
    call = caller.start(path, Empty(), Empty)
    assert isinstance(call.exception(), grpc.RpcError)
    assert (call.code(), "docs/grpc.md" in call.details()) == (grpc.StatusCode.UNIMPLEMENTED, True)


def test_streams_of_inference_are_unimplemented(caller: Caller) -> None:
    """Whoever begins one is told at once, before it has sent or read anything, what to call instead."""
    stream = caller.channel.stream_stream(f"/{INFERENCE}/ModelStreamInfer", bytes, bytes)
    with pytest.raises(grpc.RpcError) as refused:
        list(stream(iter([sign_request(1.0).SerializeToString()])))
    expected = "ModelStreamInfer: there are no streams of inference here; call ModelInfer for each request"
    assert (grpc.StatusCode.UNIMPLEMENTED, expected) == (refused.value.code(), refused.value.details())


def test_administration_is_closed(caller: Caller) -> None:
    """Nobody may load models unless the settings open that."""
    request = RepositoryModelLoadRequest(model_name="sign")
    call = caller.start("RepositoryModelLoad", request, RepositoryModelLoadResponse)
    assert isinstance(call.exception(), grpc.RpcError)
    assert call.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("service", ["", INFERENCE, "sign", "digits"])
def test_health_is_told_of_the_whole_and_of_each_family(caller: Caller, service: str) -> None:
    """`grpc.health.v1`, which needs no credentials."""
    answer = caller.call(f"/{HEALTH}/Check", HealthCheckRequest(service=service), HealthCheckResponse)
    assert answer.status == HealthCheckResponse.SERVING


def test_health_of_an_unknown_service(caller: Caller) -> None:
    """A check is NOT_FOUND; who watches is told when it comes."""
    request = HealthCheckRequest(service="nobody")
    call = caller.start(f"/{HEALTH}/Check", request, HealthCheckResponse)
    assert isinstance(call.exception(), grpc.RpcError)
    assert call.code() is grpc.StatusCode.NOT_FOUND
    watch = caller.channel.unary_stream(
        f"/{HEALTH}/Watch", HealthCheckRequest.SerializeToString, HealthCheckResponse.FromString
    )
    watched = watch(request)
    assert next(watched).status == HealthCheckResponse.SERVICE_UNKNOWN
    watched.cancel()


def test_a_tool_without_our_messages_can_ask(caller: Caller) -> None:
    """As grpcurl does: services and messages by reflection, a request made of those, an answer read with them."""
    database = ProtoReflectionDescriptorDatabase(caller.channel)
    assert sorted(database.get_services()) == [HEALTH, INFERENCE]
    pool = descriptor_pool.DescriptorPool(database)
    method = pool.FindServiceByName(INFERENCE).methods_by_name["ModelInfer"]
    request = message_factory.GetMessageClass(method.input_type)
    answer = message_factory.GetMessageClass(method.output_type)
    infer = caller.channel.unary_unary(f"/{INFERENCE}/ModelInfer", request.SerializeToString, answer.FromString)
    call = infer.future(request.FromString(sign_request(1.0).SerializeToString()))
    assert labels(ModelInferResponse.FromString(call.result().SerializeToString())) == ["yes"]
    assert trailing(call)["x-slo-met"] == "true"
