"""Logs as they leave a process: one JSON object per line, and a line for a share of the requests."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from bentoml.exceptions import InternalServerError, InvalidArgument, ServiceUnavailable

from loadtests.servers import ROOT, free_port
from router.contract import Record
from router.request import Origin
from router.sampling import fraction
from router.words import Outcome, Reason
from service.access_log import UNANSWERED_PER_S, AccessLog, fields_of
from service.logs import configure_logs, json_formatter
from service.oip.errors import ProtocolError
from service.origins import PURPOSE
from service.settings import Settings
from service.supervision import server_environment
from tests.service.conftest import eventually
from tests.service.families import write_chain
from tests.service.test_page_counts import record
from variants.repository import Repository

INFER = "/v2/models/chain/infer"
SHARE = 0.5
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Everything that `pareto serve` wrote to its error output: from start to end, with 40 answers and 25 refusals."""
    models = tmp_path_factory.mktemp("models")
    write_chain(Repository(models), "chain")
    port = free_port()
    settings = Settings(
        models=models, port=port, slots=1, log_format="json", access_log_share=SHARE, log_level="warning"
    )
    log = tmp_path_factory.mktemp("log") / "stderr"
    with log.open("w") as errors:
        serve = [sys.executable, "-m", "service.cli", "serve"]
        process = subprocess.Popen(
            serve, cwd=ROOT, env=server_environment(settings), stdout=subprocess.DEVNULL, stderr=errors
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30.0) as client:
                eventually(lambda: _is_ready(client), "the gateway is ready")
                for number in range(40):
                    ask(client, f"answered-{number}", traceparent=TRACE)
                for number in range(25):
                    ask(client, f"refused-{number}", **{"x-slo-latency-ms": "0.001"})
                native = {"model": "chain", "rows": [[0.0] * 4], "slo_ms": 0.001}
                assert client.post("/classify", json=native).status_code == 429
                assert client.post("/classify", json=native | {"model": "nobody"}).status_code == 404
        finally:
            process.terminate()
            process.wait(60.0)
    return [json.loads(line) for line in log.read_text().splitlines()]


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/v2/health/ready").status_code == 200
    except httpx.TransportError:
        return False


def ask(client: httpx.Client, name: str, **headers: str) -> None:
    body = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [31415.5, 0, 0, 0]}]}
    client.post(INFER, json=body, headers={"x-request-id": name, **headers})


def logged(lines: list[dict[str, Any]], prefix: str) -> dict[str, dict[str, Any]]:
    """The access log's lines about requests of that name, by their ids."""
    of_requests = [line for line in lines if line["logger"] == "pareto.access"]
    found = {line["request_id"]: line for line in of_requests if line["request_id"].startswith(prefix)}
    assert len(found) == sum(line["request_id"].startswith(prefix) for line in of_requests)
    return found


def test_every_line_is_an_object_that_says_when_how_bad_and_who(lines: list[dict[str, Any]]) -> None:
    """Those of BentoML's supervisor too; and our own below the level that was asked for are not there."""
    assert {"bentoml.serve", "pareto.access"} <= {line["logger"] for line in lines}
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    assert not any(line["logger"] == "pareto.lifecycle" for line in lines)


def test_a_share_of_the_answers_is_logged_with_what_their_records_say(lines: list[dict[str, Any]]) -> None:
    """Drawn by their ids alone; names, times and the trace are there, and nothing of what was asked."""
    answered = logged(lines, "answered")
    drawn = {f"answered-{number}" for number in range(40) if fraction(f"answered-{number}", PURPOSE) < SHARE}
    assert drawn == set(answered)
    line = next(iter(answered.values()))
    expected = {"model": "chain", "outcome": "served", "status": 200, "rows": 1, "tenant": "default-flow"}
    assert expected == {name: line[name] for name in expected}
    assert TRACE.split("-")[1] == line["trace_id"]
    assert line["queue_ms"] + line["compute_ms"] == pytest.approx(line["total_ms"], abs=0.01)
    assert "31415" not in json.dumps(line)


def test_refusals_are_logged_at_a_larger_share(lines: list[dict[str, Any]]) -> None:
    """Those that are drawn, and some of the others."""
    refused = logged(lines, "refused")
    drawn = {f"refused-{number}" for number in range(25) if fraction(f"refused-{number}", PURPOSE) < SHARE}
    assert drawn < set(refused)
    assert {"rejected_infeasible"} == {line["outcome"] for line in refused.values()}


@pytest.fixture
def access(caplog: pytest.LogCaptureFixture) -> Iterator[AccessLog]:
    """An access log of one request of a million, and of refusals."""
    log = AccessLog(lambda: Settings(access_log_share=1e-6), str)
    yield log
    log.close()


def refusals(count: int, at_s: float) -> list[Record]:
    return [
        record(
            outcome=Outcome.REJECTED_FULL, reason=Reason.BACKLOG_FULL, variant="", finished_s=at_s, request_id=number
        )
        for number in range(count)
    ]


def test_refusals_are_logged_up_to_a_rate(access: AccessLog, caplog: pytest.LogCaptureFixture) -> None:
    """So many a second; the next line says how many were left out, and who hung up is not among them."""
    access.observe(refusals(1000, 5.25), ())
    access.observe([record(outcome=Outcome.CANCELLED, variant="", finished_s=5.5)], ())
    access.observe(refusals(1, 6.0), ())
    access.close()
    left_out = [getattr(line, "unlogged", 0) for line in caplog.records]
    assert [0] * UNANSWERED_PER_S + [1000 - UNANSWERED_PER_S] == left_out


def test_a_log_that_nobody_reads_loses_lines_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread is stuck in the first line: others wait up to a number, and the next ones are dropped."""
    monkeypatch.setattr("service.access_log.MOST_WAITING", 5)
    monkeypatch.setattr("service.access_log.END_S", 0.01)
    log = AccessLog(lambda: Settings(access_log_share=1.0), str)
    monkeypatch.setattr(log, "_write", lambda: None)
    log.observe([record(request_id=number) for number in range(20)], ())
    assert 15 == log._unlogged
    log.close()


def test_what_a_caller_is_told_is_no_exception_of_the_servers(lines: list[dict[str, Any]]) -> None:
    """BentoML would write a line and a traceback for each refusal of its native API."""
    assert [] == [line for line in lines if "exception" in line or "Exception" in line["message"]]
    assert any("/classify" in line["message"] for line in lines), "BentoML's own access log has them"


@pytest.mark.parametrize(
    ("error", "cause", "said"),
    [
        (ServiceUnavailable("not now"), ProtocolError(503, "not now"), "WARNING /classify: 503, not now"),
        (InvalidArgument("what is that"), None, None),
        (InternalServerError("broken"), None, "ERROR Exception on /classify [POST]"),
        (ValueError("broken"), None, "ERROR Exception on /classify [POST]"),
    ],
)
def test_what_is_broken_is_logged_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch, error: Exception, cause: Exception | None, said: str | None
) -> None:
    """A refusal with 5xx is a line without, as BentoML keeps its message from the caller; one with 4xx is none."""
    error.__cause__ = cause
    logger = logging.getLogger("bentoml._internal.server.http_app")
    monkeypatch.setattr(logger, "filters", [])
    monkeypatch.setattr(logging.getLogger("uvicorn.access"), "handlers", [])
    monkeypatch.setattr(logging.getLogger("uvicorn.access"), "propagate", False)
    configure_logs(Settings())
    configure_logs(Settings())
    (one,) = logger.filters
    exception = (type(error), error, None)
    line = logger.makeRecord(
        logger.name, logging.ERROR, "", 0, "Exception on %s [%s]", ("/classify", "POST"), exception
    )
    passed = logger.filter(line)
    assert (said is not None) == bool(passed), one
    if said is not None:
        assert said == f"{line.levelname} {line.getMessage()}"
        assert (line.exc_info is None) == (line.levelno == logging.WARNING)


def test_exceptions_are_part_of_their_line() -> None:
    """A traceback is a field, not lines of its own."""
    try:
        raise ValueError("spoilt")
    except ValueError:
        fault = sys.exc_info()
    line = json_formatter().format(logging.LogRecord("pareto.x", logging.ERROR, "", 1, "went %s", ("wrong",), fault))
    assert "\n" not in line
    said = json.loads(line)
    assert ("ERROR", "pareto.x", "went wrong") == (said["level"], said["logger"], said["message"])
    assert "ValueError: spoilt" in said["exception"]


def test_a_traced_request_is_logged_with_its_span() -> None:
    """So that a line leads to its trace."""
    fields = fields_of(record(origin=Origin("r", "/", "ab" * 16, "cd" * 8)), "r", "t")
    assert ("ab" * 16, "cd" * 8) == (fields["trace_id"], fields["span_id"])
