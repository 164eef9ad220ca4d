"""Start, trouble and end of a replica."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from loadtests.servers import ROOT, Server, free_port, gateway, running
from router.scheduler import Scheduler
from service.gateway import Gateway, Phase
from service.lifecycle import Lifecycle
from service.settings import Settings
from tests.service.conftest import eventually, samples, sign_body

SLOW = "/v2/models/sign/versions/slow/infer"


def test_a_corrupt_variant_is_refused_by_name_and_the_others_serve(client: httpx.Client) -> None:
    """The index says which file is wrong; pinning the broken variant is a clear 404."""
    index = {(e["name"], e["version"]): e for e in client.post("/v2/repository/index").json()}
    assert (index["dented", "sound"]["state"], index["dented", "broken"]["state"]) == ("READY", "UNAVAILABLE")
    assert "broken/model.onnx" in index["dented", "broken"]["reason"]
    assert client.post("/v2/models/dented/infer", json=sign_body(1.0)).headers["x-variant"] == "sound"
    refused = client.post("/v2/models/dented/versions/broken/infer", json=sign_body(1.0))
    assert (refused.status_code, "refused" in refused.json()["error"]) == (404, True)


def test_a_full_queue_answers_503(models: Path) -> None:
    """The backlog is bounded: what does not fit is told to come back, what fits is answered."""
    with (
        running(gateway(models, {"PARETO_SLOTS": "1", "PARETO_BACKLOG": "4", "PARETO_MAX_ROWS": "4"})) as server,
        httpx.Client(base_url=server.url, timeout=60.0) as client,
        ThreadPoolExecutor(12) as pool,
    ):
        answers = list(pool.map(lambda _: client.post(SLOW, json=sign_body(1.0)), range(12)))
        refused = [answer for answer in answers if answer.status_code == 503]
        served = [answer for answer in answers if answer.status_code == 200]
        counted = samples(client, outcome="rejected_full")
    assert len(refused) + len(served) == 12
    assert served
    assert refused
    assert {answer.headers["x-request-dropped-reason"] for answer in refused} == {"backlog_full"}
    assert all("retry-after" in answer.headers for answer in refused)
    assert counted == len(refused)


def test_sigterm_drains(models: Path) -> None:
    """Accepted requests are answered, new ones get 503, readiness flips and liveness stays."""
    with running(gateway(models, {"PARETO_SLOTS": "1"})) as server:
        worker = worker_of(server)
        with httpx.Client(base_url=server.url, timeout=60.0) as client, ThreadPoolExecutor(8) as pool:
            client.get("/v2/health/ready")
            accepted = [pool.submit(client.post, SLOW, json=sign_body(*[1.0] * 4)) for _ in range(6)]
            eventually(lambda: gauge(client, "pareto_unfinished_requests") == 6, "six requests are accepted")
            worker.send_signal(signal.SIGTERM)
            eventually(lambda: client.get("/v2/health/ready").status_code == 503, "readiness flips")
            assert client.get("/livez").status_code == 200
            turned_away = client.post(SLOW, json=sign_body(1.0))
            assert (turned_away.status_code, turned_away.headers["x-request-dropped-reason"]) == (503, "draining")
            assert [answer.result().status_code for answer in accepted] == [200] * 6


def test_the_whole_server_ends_with_0_on_sigterm_under_load(models: Path) -> None:
    """The supervisor passes the signal on and ends with 0.

    Every answer is a 200 or a 503; at most one request per connection may find it closed under its hands, as HTTP's
    kept-alive connections have it: none of those reached the gateway.
    """
    port = free_port()
    command = [sys.executable, "-m", "bentoml", "serve", "service.bento:svc", "--port", str(port)]
    environment = {**os.environ, "PARETO_MODELS": str(models), "BENTOML_DO_NOT_TRACK": "True", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    seen: list[int | str] = []
    stop = threading.Event()

    def ask(client: httpx.Client) -> None:
        while not stop.is_set():
            try:
                seen.append(client.post("/v2/models/sign/versions/quick/infer", json=sign_body(1.0)).status_code)
            except httpx.ConnectError:
                return
            except httpx.TransportError as error:
                seen.append(type(error).__name__)
                return

    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60.0) as client:
            eventually(lambda: ready(client), "the server is ready")
            with ThreadPoolExecutor(4) as pool:
                askers = [pool.submit(ask, client) for _ in range(4)]
                eventually(lambda: len(seen) > 50, "requests flow")
                process.terminate()
                code = process.wait(timeout=60)
                stop.set()
                for asker in askers:
                    asker.result()
    finally:
        process.kill()
    assert code == 0
    assert set(seen) <= {200, 503, "RemoteProtocolError", "ReadError"}
    assert sum(isinstance(status, str) for status in seen) <= 4


def test_plain_bentoml_serve_says_what_is_wrong_with_the_settings() -> None:
    """One line and a non-zero exit, not a worker that is started again and again."""
    command = [sys.executable, "-m", "bentoml", "serve", "service.bento:svc", "--port", str(free_port())]
    environment = {**os.environ, "PARETO_SLOTS": "none", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode != 0
    said = ended.stdout + ended.stderr
    assert "pareto: slots (PARETO_SLOTS): expected a whole number" in said
    assert "Traceback" not in said


def test_an_empty_repository_is_alive_but_not_ready_and_says_why(tmp_path: Path) -> None:
    """Probes can tell a broken replica from a slow one."""
    command = dataclasses.replace(gateway(tmp_path), ready_path="/livez")
    with running(command) as server, httpx.Client(base_url=server.url) as client:
        eventually(lambda: "empty" in client.get("/v2/health/ready").text, "the reason is known")
        response = client.get("/v2/health/ready")
        assert response.status_code == 503
        assert "empty" in response.json()["error"]


def test_a_lame_duck_answers_until_a_second_sigterm(models: Path) -> None:
    """It is not ready, takes requests, and has each connection closed; then what is left fails with its outcome."""
    with running(gateway(models, {"PARETO_SLOTS": "2", "PARETO_LAME_DUCK_S": "25", "PARETO_DRAIN_S": "0"})) as server:
        worker = worker_of(server)
        with httpx.Client(base_url=server.url, timeout=60.0) as client, ThreadPoolExecutor(2) as pool:
            patient = {"x-gateway-inference-objective": "batch"}
            long = pool.submit(client.post, SLOW, json=sign_body(*[1.0] * 400), headers=patient)
            eventually(lambda: gauge(client, "pareto_unfinished_requests") == 1, "the request is accepted")
            worker.send_signal(signal.SIGTERM)
            eventually(lambda: client.get("/v2/health/ready").status_code == 503, "readiness flips")
            not_ready = [client.get(path) for path in ("/v2/health/ready", "/readyz", "/v2/models/sign/ready")]
            assert [503] * 3 == [answer.status_code for answer in not_ready]
            assert all("leaving" in answer.json()["error"] for answer in not_ready)
            answered = client.post("/v2/models/sign/versions/quick/infer", json=sign_body(1.0))
            assert (200, "close") == (answered.status_code, answered.headers["connection"])
            assert (0.0, 1.0) == (gauge(client, "pareto_ready"), gauge(client, "pareto_unfinished_requests"))
            worker.send_signal(signal.SIGTERM)
            assert (long.result().status_code, long.result().headers["x-request-dropped-reason"]) == (503, "draining")


def worker_of(server: Server) -> psutil.Process:
    """The process that answers requests."""
    (worker,) = [p for p in server.tree() if any("worker.service" in argument for argument in p.cmdline())]
    return worker


def gauge(client: httpx.Client, name: str) -> float:
    """The value of a gauge without labels."""
    for line in client.get("/metrics").text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    return 0.0


def ready(client: httpx.Client) -> bool:
    """Whether the server takes requests."""
    try:
        return client.get("/v2/health/ready").status_code == 200
    except httpx.TransportError:
        return False


def test_a_fixed_variant_that_nobody_has_is_said_at_once(models: Path) -> None:
    """A slip in the policy's name does not quietly become another policy."""
    command = dataclasses.replace(gateway(models, {"PARETO_POLICY": "fixed:typo"}), ready_path="/livez")
    with running(command) as server, httpx.Client(base_url=server.url) as client:
        eventually(lambda: "nothing to serve" in client.get("/v2/health/ready").text, "the replica refuses")


def test_a_fault_after_sighup_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Also one that nobody foresaw, with its traceback."""

    async def broken() -> None:
        raise RuntimeError("unforeseen")

    lifecycle = Lifecycle(Gateway(Settings()))
    lifecycle._reload = broken

    async def scenario() -> None:
        lifecycle._hung_up()
        lifecycle._hung_up()
        await asyncio.gather(*lifecycle._reloading)

    with caplog.at_level(logging.ERROR, "pareto.lifecycle"):
        asyncio.run(scenario())
    assert ["unforeseen"] * 2 == [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
    assert set() == lifecycle._reloading


def test_a_signal_while_loading_is_not_forgotten(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that was told to end while its scheduler was made does not become ready."""
    gateway = Gateway(Settings(models=sound, slots=1))

    async def scenario() -> None:
        loop = asyncio.get_running_loop()

        def made(*given: Any, **named: Any) -> Scheduler:
            asyncio.run_coroutine_threadsafe(gateway.drain(), loop).result()
            return Scheduler(*given, **named)

        monkeypatch.setattr("service.starting.Scheduler", made)
        await gateway.start()

    asyncio.run(scenario())
    assert Phase.DRAINING is gateway.phase
