"""One real gateway process, served by BentoML over a real socket, for all tests that do not need their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from loadtests.servers import Server, free_port, gateway, running
from tests.service.families import sign_model, write_family
from tests.service.grpc_caller import Caller, calling
from tests.shared import made_once
from variants.build import build_family
from variants.families import load_family
from variants.progress import open_display
from variants.repository import Repository

WAIT_S = 60.0
"""Reached only by what never comes: a machine that others use as well may be five times as slow as an idle one."""


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with `digits` (really built), `sign` (fast and slow variants) and `dented` (one file corrupt).

    All workers share it: what changes a repository takes one of its own.
    """
    return made_once(tmp_path_factory, "models", _make_models)


def _make_models(root: Path) -> None:
    repository = Repository(root)
    build_family(load_family("digits"), repository, display=open_display("digits"))
    write_family(repository, "sign", {"quick": (sign_model(), 0.8), "slow": (sign_model(300), 0.9)})
    write_family(repository, "dented", {"sound": (sign_model(), 0.8), "broken": (sign_model(1), 0.9)})
    broken = repository.open("dented").file("broken/model.onnx")
    broken.write_bytes(broken.read_bytes()[:-100])


@pytest.fixture(scope="session")
def grpc_port() -> int:
    """The port on which the shared gateway listens for gRPC."""
    return free_port()


@pytest.fixture(scope="session")
def server(models: Path, grpc_port: int) -> Iterator[Server]:
    """A gateway with two slots over that repository, and gRPC beside HTTP."""
    settings = {"PARETO_SLOTS": "2", "PARETO_GRPC_PORT": str(grpc_port), "PARETO_GRPC_REFLECTION": "true"}
    with running(gateway(models, settings)) as running_server:
        yield running_server


@pytest.fixture
def caller(server: Server, grpc_port: int) -> Iterator[Caller]:
    """A gRPC client of the shared gateway."""
    with calling(grpc_port) as one:
        yield one


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    """An HTTP client of the shared gateway."""
    with httpx.Client(base_url=server.url, timeout=30.0) as http:
        yield http


def sign_body(*first: float, second: float = 0.0) -> dict[str, object]:
    """An inference request for `sign` with one row for each value."""
    data = [value for x0 in first for value in (x0, second, 0.0, 0.0)]
    return {"inputs": [{"name": "x", "shape": [len(first), 4], "datatype": "FP32", "data": data}]}


def samples(client: httpx.Client, **labels: str) -> float:
    """The sum over all series of `pareto_requests_total` with these labels."""
    total = 0.0
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            if sample.name == "pareto_requests_total" and labels.items() <= sample.labels.items():
                total += sample.value
    return total


def sound_again(client: httpx.Client, model: str, variant: str) -> None:
    """Wait until a variant that broke has been tried again."""
    ready = f"/v2/models/{model}/versions/{variant}/ready"
    eventually(lambda: client.get(ready).status_code == 200, f"{variant} of {model} answers again")


def eventually(condition: Callable[[], bool], what: str, wait_s: float = WAIT_S) -> None:
    """Ask again and again until the condition holds; fail after `wait_s`."""
    limit_s = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < limit_s, f"after {wait_s:g} s still not: {what}"
        time.sleep(0.01)
