"""What a replica answers while it is not ready, asked through the ASGI app itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from service.dataplane import DataPlane
from service.gateway import Gateway, Phase
from service.settings import Settings
from tests.service.families import sign_model, write_family
from variants.repository import Repository

Message = MutableMapping[str, Any]


async def nobody(*given: object) -> None:
    raise AssertionError("nothing is passed on")


def ask(gateway: Gateway, method: str, path: str) -> tuple[int, Any]:
    """Status and document of the answer to one request without a body."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": []}
    asyncio.run(DataPlane(gateway, nobody, frozenset())(scope, receive, send))
    start, content = sent
    return start["status"], json.loads(content["body"])


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    """A replica that has not loaded yet; its repository has a sound family and one without a single sound file."""
    repository = Repository(tmp_path / "models")
    for name in ("sound", "rotten"):
        write_family(repository, name, {"only": (sign_model(), 0.8)})
    repository.open("rotten").file("only/model.onnx").unlink()
    return Gateway(Settings(models=repository.root, slots=1))


@pytest.mark.parametrize(
    "path", ["/readyz", "/v2/health/ready", "/v2/models/sound/ready", "/v2/models/sound/versions/only/ready"]
)
def test_probes_of_readiness_are_no_refused_requests(gateway: Gateway, path: str) -> None:
    """A prober that waits for the replica is told 503 and counted nowhere."""
    assert ask(gateway, "GET", path)[0] == 503
    assert b"pareto_protocol_errors_total{" not in gateway.metrics.exposition()


@pytest.mark.parametrize(("method", "path"), [("GET", "/v2/models/ready"), ("POST", "/v2/models/sound/infer")])
def test_what_else_is_refused_meanwhile_is_counted(gateway: Gateway, method: str, path: str) -> None:
    """Metadata and inference before the replica is ready are refused requests."""
    assert ask(gateway, method, path)[0] == 503
    assert b'pareto_protocol_errors_total{status="503"} 1.0' in gateway.metrics.exposition()


def test_the_index_follows_the_replica_and_keeps_its_folders_to_itself(gateway: Gateway, tmp_path: Path) -> None:
    """Ready, then draining; a family that cannot be loaded is named, its fault is in the log."""
    asyncio.run(gateway.start())
    rotten = {
        "name": "rotten",
        "version": "",
        "state": "UNAVAILABLE",
        "reason": "rotten: cannot be loaded, see the log",
    }
    sound = {"name": "sound", "version": "only", "state": "READY", "reason": ""}
    assert ask(gateway, "POST", "/v2/repository/index") == (200, [sound, rotten])
    gateway.phase = Phase.DRAINING
    draining = {**sound, "state": "UNAVAILABLE", "reason": "draining"}
    assert ask(gateway, "POST", "/v2/repository/index") == (200, [draining, rotten])
    gateway.abandon()
