"""Start, changes and end of a replica as gRPC's callers see them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from loadtests.servers import ROOT, free_port, gateway, running
from service.rpc.health import SERVICE as HEALTH
from service.rpc.open_inference_pb2 import (
    ModelInferResponse,
    RepositoryModelLoadRequest,
    RepositoryModelLoadResponse,
    RepositoryModelUnloadRequest,
    RepositoryModelUnloadResponse,
    ServerReadyRequest,
    ServerReadyResponse,
)
from tests.service.conftest import eventually
from tests.service.grpc_caller import Caller, calling, sign_request, trailing
from tests.service.test_lifecycle import gauge, worker_of

CALLERS = 32
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


def watching(caller: Caller, service: str) -> Iterator[int]:
    """The status of a service, now and whenever it changes."""
    watch = caller.channel.unary_stream(
        f"/{HEALTH}/Watch", HealthCheckRequest.SerializeToString, HealthCheckResponse.FromString
    )
    return (answer.status for answer in watch(HealthCheckRequest(service=service), timeout=120))


def test_models_come_and_go_and_a_drain_loses_nothing(models: Path) -> None:
    """An unloaded family is NOT_SERVING until it is loaded; at SIGTERM all are, and what was accepted is answered."""
    port = free_port()
    settings = {"PARETO_SLOTS": "1", "PARETO_GRPC_PORT": str(port), "PARETO_ADMIN": "true", "PARETO_LAME_DUCK_S": "3"}
    with running(gateway(models, settings)) as server, calling(port) as caller:
        whole, digits = watching(caller, ""), watching(caller, "digits")
        assert [next(whole), next(digits)] == [SERVING, SERVING]
        unload = RepositoryModelUnloadRequest(model_name="digits")
        assert caller.call("RepositoryModelUnload", unload, RepositoryModelUnloadResponse).isUnloaded
        assert next(digits) == NOT_SERVING
        # As KServe numbers the fields.
        load = RepositoryModelLoadRequest(repository_name="digits")
        assert caller.call("RepositoryModelLoad", load, RepositoryModelLoadResponse).model_name == "digits"
        assert next(digits) == SERVING
        load.model_name = "nobody"
        refused = caller.start("RepositoryModelLoad", load, RepositoryModelLoadResponse)
        assert isinstance(refused.exception(), grpc.RpcError)
        assert (refused.code().name, "repository 'digits' not found" in refused.details()) == ("NOT_FOUND", True)

        slow = sign_request(*[1.0] * 10, variant="slow")
        patient = [("x-slo-latency-ms", "60000")]
        with httpx.Client(base_url=server.url, timeout=60.0) as client:
            client.get("/v2/health/ready")
            accepted = [caller.start("ModelInfer", slow, ModelInferResponse, patient, 60.0) for _ in range(6)]
            eventually(lambda: gauge(client, "pareto_unfinished_requests") == 6, "six requests are accepted")
        worker_of(server).send_signal(signal.SIGTERM)
        assert [next(whole), next(digits)] == [NOT_SERVING, NOT_SERVING]
        assert not caller.call("ServerReady", ServerReadyRequest(), ServerReadyResponse).ready
        # The lame duck's time is over once watchers are let go.
        assert list(whole) == []
        eventually(lambda: caller.refusal(slow)[0] == "UNAVAILABLE", "the port is closed")
        assert [call.result().model_version for call in accepted] == ["slow"] * 6
        assert all(trailing(call)["x-variant"] == "slow" for call in accepted)


def test_who_asks_while_the_replica_leaves_is_told_to_go_elsewhere(models: Path) -> None:
    """Whether its call was taken in already or not: nobody's call ends as if the caller had hung up."""
    port, busy = free_port(), threading.Barrier(CALLERS + 1, timeout=60.0)
    settings = {"PARETO_SLOTS": "1", "PARETO_GRPC_PORT": str(port)}

    def ask_until_refused() -> str:
        with calling(port) as caller:
            asked = 0
            while True:
                call = caller.start("ModelInfer", sign_request(1.0, variant="quick"), ModelInferResponse)
                if call.exception() is not None:
                    return str(call.code().name)
                asked += 1
                if asked == 5:
                    busy.wait()

    with running(gateway(models, settings)) as server, ThreadPoolExecutor(CALLERS) as pool:
        last = [pool.submit(ask_until_refused) for _ in range(CALLERS)]
        busy.wait()
        worker_of(server).send_signal(signal.SIGTERM)
        assert ["UNAVAILABLE"] * CALLERS == [one.result() for one in last]


def test_a_taken_port_is_one_line_and_no_server(models: Path) -> None:
    """Plain `bentoml serve` ends as it begins, and does not come up without gRPC."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "bentoml", "serve", "service.bento:svc", "--port", str(free_port())]
        settings = {"PARETO_MODELS": str(models), "PARETO_GRPC_PORT": str(port), "PYTHONPATH": str(ROOT)}
        ended = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **settings}, capture_output=True, text=True, timeout=60, check=False
        )
    said = ended.stdout + ended.stderr
    assert (ended.returncode, "Traceback" in said) == (1, False)
    assert f"pareto: port {port} on 127.0.0.1 is in use" in said
    assert "choose another with `grpc_port`" in said
