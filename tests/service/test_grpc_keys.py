"""Who gets in over gRPC: API keys in the metadata, roles and tenants as over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from google.protobuf.message import Message
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from loadtests.servers import Server, free_port, gateway, running
from service.rpc.health import SERVICE as HEALTH
from service.rpc.open_inference_pb2 import (
    ModelInferResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    RepositoryModelLoadRequest,
    RepositoryModelLoadResponse,
    ServerReadyRequest,
    ServerReadyResponse,
)
from service.rpc.reflection import PATH as REFLECTION
from tests.service.conftest import eventually, samples
from tests.service.grpc_caller import Caller, Metadata, calling, sign_request

INFER, BOUND, READ, ADMIN = (f"{name}-0123456789abcdef" for name in ("infer", "bound", "read", "admin"))


@pytest.fixture(scope="module")
def port() -> int:
    """Where gRPC listens."""
    return free_port()


@pytest.fixture(scope="module")
def guarded(models: Path, port: int) -> Iterator[Server]:
    """A gateway that wants keys."""
    keys = (f"asker {INFER}", f"shop {BOUND} tenant=acme", f"reader {READ} role=read", f"ops {ADMIN} role=admin")
    environment = {
        "PARETO_SLOTS": "1",
        "PARETO_GRPC_PORT": str(port),
        "PARETO_GRPC_REFLECTION": "true",
        "PARETO_API_KEYS": ";".join(keys),
        "PARETO_TENANTS": "acme,rich",
        "PARETO_ADMIN": "true",
    }
    with running(gateway(models, environment)) as server:
        yield server


@pytest.fixture
def caller(guarded: Server, port: int) -> Iterator[Caller]:
    """A caller that shows no key by itself."""
    with calling(port) as one:
        yield one


Asked = tuple[str, Message, type[Message]]


def status(caller: Caller, asked: Asked, metadata: Metadata) -> str:
    """The name of the code that a call ends with."""
    call = caller.start(*asked, metadata)
    call.exception()
    name: str = call.code().name
    return name


def shown(key: str) -> list[Metadata]:
    """Both ways to show a key."""
    return [[("authorization", f"Bearer {key}")], [("x-api-key", key)]]


INFERENCE: Asked = ("ModelInfer", sign_request(1.0, variant="quick"), ModelInferResponse)
READINESS: Asked = ("ModelReady", ModelReadyRequest(name="sign"), ModelReadyResponse)
LOADING: Asked = ("RepositoryModelLoad", RepositoryModelLoadRequest(model_name="sign"), RepositoryModelLoadResponse)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("", ["UNAUTHENTICATED"] * 3),
        (INFER + "x", ["UNAUTHENTICATED"] * 3),
        (READ, ["PERMISSION_DENIED"] * 3),
        (INFER, ["OK", "OK", "PERMISSION_DENIED"]),
        (ADMIN, ["OK"] * 3),
    ],
)
def test_a_key_opens_what_its_roles_say(caller: Caller, key: str, expected: list[str]) -> None:
    """Inference, descriptions and administration, by either name in the metadata."""
    for metadata in shown(key) if key else [[]]:
        assert expected == [status(caller, call, metadata) for call in (INFERENCE, READINESS, LOADING)]


def test_probes_need_no_key(caller: Caller) -> None:
    """Health, by its own service and by the protocol's."""
    assert caller.call(f"/{HEALTH}/Check", HealthCheckRequest(service="sign"), HealthCheckResponse).status == 1
    assert caller.call("ServerReady", ServerReadyRequest(), ServerReadyResponse).ready


def test_reflection_needs_a_key(caller: Caller) -> None:
    """What is said of the interface is for those who may use it."""
    ask = caller.channel.stream_stream(REFLECTION, bytes, bytes)
    with pytest.raises(grpc.RpcError) as refused:
        next(ask(iter([b""])))
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_key_of_a_tenant_asks_as_that_tenant_whatever_it_says(guarded: Server, caller: Caller) -> None:
    """The tenant named in the metadata has no part in it."""
    with httpx.Client(base_url=guarded.url, headers={"x-api-key": ADMIN}) as watch:
        before = samples(watch, tenant="acme"), samples(watch, tenant="rich")
        caller.infer(
            sign_request(1.0, variant="quick"), [("x-api-key", BOUND), ("x-gateway-inference-fairness-id", "rich")]
        )
        eventually(lambda: samples(watch, tenant="acme") == before[0] + 1, "the request is counted")
        assert samples(watch, tenant="rich") == before[1]
