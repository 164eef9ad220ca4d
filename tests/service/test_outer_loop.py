"""The outer loop's edge: a Prometheus that is away, hangs, lies or talks nonsense leaves everything as it was."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import shutil
import subprocess
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from router.contract import Hints
from router.outer_loop import FamilyReading, Rule
from service.outer_loop import OuterLoopReader
from service.outer_loop_queries import Windows, answer_of, expression
from service.prometheus import MOST_BYTES, Prometheus, Result, Sample, Vector

UP = Rule().up
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


def said(*samples: tuple[dict[str, str], object], at: float = 1.0) -> bytes:
    """The body of an answer."""
    result = [{"metric": labels, "value": [at, value]} for labels, value in samples]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()


BURNING = (
    ({"signal": "age"}, "3"),
    ({"signal": "short", "model": "f"}, "0.5"),
    ({"signal": "long", "model": "f"}, "0.5"),
)


def http(body: bytes, status: str = "200 OK", more: str = "") -> Handler:
    """Answers every connection's first request so, and closes it."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n{more}\r\n"
        writer.write(head.encode() + body)
        writer.close()

    return handle


async def _hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def _drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A byte now and then: no single read takes long."""
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while not writer.is_closing():
        writer.write(b" ")
        await asyncio.sleep(0.01)


async def _floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """More than anybody wants, without saying how much."""
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (MOST_BYTES + 1))


async def _speaks_no_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-nobody\r\n")
    writer.close()


async def read_from(handler: Handler, timeout_s: float = 5.0) -> tuple[OuterLoopReader, list[Hints]]:
    """One attempt at a server of that kind."""
    taken: list[Hints] = []
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    prometheus = Prometheus(f"http://127.0.0.1:{port}", timeout_s)
    reader = OuterLoopReader(prometheus, lambda: {"f": 0.99}, taken.append, Windows(300, 3600), 15.0)
    await reader._attempt()
    await prometheus.close()
    server.close()
    return reader, taken


def test_a_reading_becomes_advice() -> None:
    """What burns is answered with caution, of which metrics are told."""
    reader, taken = asyncio.run(read_from(http(said(*BURNING))))
    assert {"f": UP} == taken[0].caution
    assert (taken[0], 1, 1) == (reader.hints, reader.results[Result.TAKEN], reader.changes["f", "up"])


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (_hangs, Result.TIMEOUT),
        (_drips, Result.TIMEOUT),
        (_floods, Result.TOO_LARGE),
        (_speaks_no_http, Result.UNREACHABLE),
        (http(b"oh no", "500 Internal Server Error"), Result.HTTP_ERROR),
        (http(b"", "302 Found", "location: http://127.0.0.1:1/\r\n"), Result.HTTP_ERROR),
        (http(b"\xff\x00garbage"), Result.MALFORMED),
        (http(b""), Result.MALFORMED),
        (http(b"[]"), Result.MALFORMED),
        (http(b'{"status": "error", "error": "bad"}'), Result.MALFORMED),
        (http(b'{"status": "success", "data": {"resultType": "scalar", "result": [1, "2"]}}'), Result.MALFORMED),
        (http(said(({"signal": "short", "model": "f"}, None))), Result.MALFORMED),
        (http(said(({"signal": "short", "model": "f"}, "much"))), Result.MALFORMED),
        (
            http(b'{"status":"success","data":{"resultType":"vector","result":[{"metric":[],"value":[1,"1"]}]}}'),
            Result.MALFORMED,
        ),
        (http(said(({"signal": "short", "model": ["f"]}, "0.5"))), Result.MALFORMED),  # type: ignore[dict-item]  # what must fail
        (http(said()), Result.STALE),
        (http(said(({"signal": "age"}, "61"))), Result.STALE),
        (http(said(({"signal": "age"}, "NaN"))), Result.STALE),
    ],
)
def test_a_server_that_is_no_help_changes_nothing(handler: Handler, expected: Result) -> None:
    """It hangs, drips, floods, fails, redirects, or talks nonsense: one attempt is counted, no advice is given."""
    timeout_s = 0.1 if expected is Result.TIMEOUT else 5.0
    reader, taken = asyncio.run(read_from(handler, timeout_s))
    assert ([], None, {expected: 1}) == (taken, reader.hints, dict(reader.results))


def test_values_that_cannot_be_shares_are_rejected_one_by_one() -> None:
    """What else the answer holds is taken; families that are not served are passed over."""
    samples = [
        Sample({"signal": "age"}, 0.0),
        Sample({"signal": "short", "model": "f"}, math.nan),
        Sample({"signal": "long", "model": "f"}, 0.25),
        Sample({"signal": "downgraded", "model": "f"}, -3.0),
        Sample({"signal": "short", "model": "theirs"}, 7.0),
        Sample({"signal": "rude", "model": "f"}, 0.5),
        Sample({"signal": "cpu"}, math.inf),
        Sample({"signal": "gpu"}, 0.75),
    ]
    answer = answer_of(Vector(tuple(samples), 1.0), {"f"}, 60.0)
    assert ({"f": FamilyReading(None, 0.25, None)}, 0.75) == answer.readings
    assert {"short": 1, "downgraded": 1, "cpu": 1} == answer.rejected


def test_a_repeated_answer_is_stale() -> None:
    """A cache that gives the same answer again cannot keep advice alive."""

    async def twice() -> OuterLoopReader:
        server = await asyncio.start_server(http(said(*BURNING)), "127.0.0.1", 0)
        prometheus = Prometheus(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", 5.0)
        reader = OuterLoopReader(prometheus, lambda: {"f": 0.99}, lambda hints: None, Windows(300, 3600), 15.0)
        await reader._attempt()
        await reader._attempt()
        await prometheus.close()
        server.close()
        return reader

    assert {Result.TAKEN: 1, Result.STALE: 1} == dict(asyncio.run(twice()).results)


def test_advice_grows_old() -> None:
    """Once readings fail for longer than its age, no advice is in force."""
    now = [100.0]

    async def taken_once() -> OuterLoopReader:
        server = await asyncio.start_server(http(said(*BURNING)), "127.0.0.1", 0)
        prometheus = Prometheus(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", 5.0)
        windows = Windows(300, 3600)
        reader = OuterLoopReader(
            prometheus, lambda: {"f": 0.99}, lambda hints: None, windows, 15.0, clock=lambda: now[0]
        )
        await reader.read()
        await prometheus.close()
        server.close()
        return reader

    reader = asyncio.run(taken_once())
    found: list[Hints | None] = []
    for later_s in (60.0, 1.0):
        now[0] += later_s
        found.append(reader.hints)
    assert ({"f": UP}, None) == (found[0] and found[0].caution, found[1])
    assert 61.0 == reader.age_s


def test_a_server_that_is_away_is_told_once_and_tried_ever_more_seldom(caplog: pytest.LogCaptureFixture) -> None:
    """One line in the log, without the password; attempts are twice as far apart each time, up to five minutes."""

    async def attempts() -> list[float]:
        server = await asyncio.start_server(_hangs, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        prometheus = Prometheus(f"http://me:secret@127.0.0.1:{port}/prefix/", 5.0)
        reader = OuterLoopReader(prometheus, lambda: {"f": 0.99}, lambda hints: None, Windows(300, 3600), 15.0)
        waits = [await reader._attempt() for _ in range(7)]
        await prometheus.close()
        return waits

    with caplog.at_level(logging.INFO, "pareto.outer_loop"):
        waits = asyncio.run(attempts())
    (line,) = [record.getMessage() for record in caplog.records if record.name == "pareto.outer_loop"]
    assert [30.0, 60.0, 120.0, 240.0, 300.0, 300.0, 300.0] == waits
    assert "/prefix: cannot be asked" in line
    assert "secret" not in line


def test_what_nobody_foresaw_does_not_end_the_loop() -> None:
    """A fault of ours, in what takes the advice, is counted as that."""

    def broken(hints: Hints) -> None:
        raise RuntimeError("not today")

    async def attempt() -> OuterLoopReader:
        server = await asyncio.start_server(http(said(*BURNING)), "127.0.0.1", 0)
        prometheus = Prometheus(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", 5.0)
        reader = OuterLoopReader(prometheus, lambda: {"f": 0.99}, broken, Windows(300, 3600), 15.0)
        await reader._attempt()
        await prometheus.close()
        server.close()
        return reader

    assert {Result.INTERNAL_ERROR: 1} == dict(asyncio.run(attempt()).results)


EXPRESSION_TEST = """
rule_files: []
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'pareto_slo_target_ratio{model="f",job="g"}', values: "0.99x60"}
      - {series: 'pareto_slo_judged_total{model="f",variant="a",instance="1",job="g"}', values: "0+100x60"}
      - {series: 'pareto_slo_met_total{model="f",variant="a",instance="1",job="g"}', values: "0+98x60"}
      - {series: 'pareto_slo_judged_total{model="f",variant="",instance="2",job="g"}', values: "0+100x60"}
      - {series: 'pareto_slo_judged_total{model="f",variant="",instance="1",job="others"}', values: "0+900x60"}
      - {series: 'pareto_slo_judged_total{model="shut",variant="",job="g"}', values: "0+100x60"}
      - {series: 'pareto_slo_judged_total{model="few",variant="",job="g"}', values: "0+3x60"}
      - {series: 'pareto_slo_judged_total{model="idle",variant="",job="g"}', values: "7x60"}
      - {series: 'pareto_variant_quality_ratio{model="f",variant="a",job="g"}', values: "0.8x60"}
      - {series: 'pareto_variant_quality_ratio{model="f",variant="b",job="g"}', values: "0.9x60"}
      - {series: 'pareto_variant_quality_ratio{model="shut",variant="only",job="g"}', values: "0.9x60"}
      - {series: 'pareto_request_latency_seconds_count{model="f",variant="a",job="g"}', values: "0+100x60"}
      - {series: 'pareto_served_quality_sum_total{model="f",variant="a",job="g"}', values: "0+82x60"}
      - {series: 'node_pressure_cpu_waiting_seconds_total{instance="h:9100",job="node"}', values: "0+15x60"}
      - {series: 'node_pressure_cpu_waiting_seconds_total{instance="h:9100",job="node2"}', values: "0+15x60"}
      - {series: 'node_uname_info{instance="h:9100",job="node",nodename="here"}', values: "1x60"}
      - {series: 'node_uname_info{instance="h:9100",job="node2",nodename="here"}', values: "1x60"}
      - {series: 'node_pressure_cpu_waiting_seconds_total{instance="o:9100",job="node"}', values: "0+60x60"}
      - {series: 'node_uname_info{instance="o:9100",job="node",nodename="there"}', values: "1x60"}
      - {series: 'DCGM_FI_DEV_GPU_UTIL{Hostname="here",gpu="0"}', values: "75x60"}
      - {series: 'DCGM_FI_DEV_GPU_UTIL{Hostname="there",gpu="0"}', values: "99x60"}
    promql_expr_test:
      - expr: round(EXPRESSION, 0.001)
        eval_time: 30m
        exp_samples:
          - {labels: '{model="f", signal="short"}', value: 0.51}
          - {labels: '{model="shut", signal="short"}', value: 1}
          - {labels: '{model="f", signal="long"}', value: 0.51}
          - {labels: '{model="shut", signal="long"}', value: 1}
          - {labels: '{model="few", signal="long"}', value: 1}
          - {labels: '{model="f", signal="downgraded"}', value: 0.8}
          - {labels: '{signal="cpu"}', value: 0.25}
          - {labels: '{signal="gpu"}', value: 0.75}
          - {labels: '{signal="age"}', value: 0}
"""


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian package prometheus) is not installed")
def test_the_expression_means_what_its_signals_say(tmp_path: Path) -> None:
    """Two replicas are one fleet, another one stays out; families shut, idle or with few requests; two exporters of a
    host do no harm, and other hosts do not count.
    """
    asked = expression(Windows(300, 1200), 'job="g"', "here")
    file = tmp_path / "expression_test.yml"
    file.write_text(EXPRESSION_TEST.replace("EXPRESSION", asked.replace("\\", "\\\\")))
    checked = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
