"""The benchmarks' parts: generators that check answers, ratios within rounds, peers, calibration, reports."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import orjson
import pytest

from loadtests import oip
from loadtests.calibration import Pinned, calibrate, capacity_per_s, profiled_noise
from loadtests.closedloop import GeneratorError, Throughput, generator_name, measure
from loadtests.fetch import fetch
from loadtests.generator_faults import Sending
from loadtests.machine import Machine
from loadtests.outcomes import Fate, Results
from loadtests.overhead import compare, markdown
from loadtests.report import read_score, score_json, write_json
from loadtests.samples import Samples, read_samples
from loadtests.scoring import score
from loadtests.servers import ServerError, bare, bento_batchable, running
from loadtests.simulator import simulate
from loadtests.synthetic import synthetic
from loadtests.workload import Workload
from router.family import Family, VariantProfile
from router.latency import table
from router.policies.fixed import Fixed
from variants.repository import Repository

GENERATORS = sorted({"built-in", generator_name()})


@contextmanager
def answering(status: int) -> Iterator[str]:
    """The URL of a server that echoes every body with that status."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/any"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("connections", [1, 4])
def test_a_generator_counts_answers(generator: str, connections: int) -> None:
    """Rates and latencies come from real exchanges over kept-alive connections."""
    with answering(200) as url:
        result = measure(url, b'{"x": [1, 2]}', connections, 1, generator=generator)
    assert result.requests > 0
    assert 0.0 < result.p50_s <= result.p99_s <= result.max_s
    assert 0 == result.errors


@pytest.mark.parametrize("generator", GENERATORS)
def test_a_generator_accepts_nothing_but_200(generator: str) -> None:
    """A server that answers quickly but wrongly gives no throughput."""
    with answering(500) as url, pytest.raises(GeneratorError):
        measure(url, b"{}", 2, 1, generator=generator)


def throughput(per_s: float, max_s: float = 0.01) -> Throughput:
    return Throughput(100, per_s, 0.001, 0.002, max_s, 0)


def test_ratios_are_taken_within_rounds() -> None:
    """A machine that halves its speed between rounds does not change a ratio."""
    rounds = [
        {"bare": throughput(100.0), "gateway": throughput(150.0)},
        {"bare": throughput(50.0), "gateway": throughput(70.0, 0.04)},
        {"bare": throughput(200.0), "gateway": throughput(320.0)},
    ]
    _, gateway = compare(16, rounds)
    assert (1.5, 1.4, 1.6) == (gateway.ratio, gateway.ratio_min, gateway.ratio_max)
    assert (150.0, 0.01, 0.04) == (gateway.per_s, gateway.max_s, gateway.worst_max_s)
    assert "| 16 | gateway | 150 | 1.50 (1.40-1.60) | 1.00 ms | 2.00 ms | 10.0 (40.0) ms |\n" in markdown([gateway])


def test_the_bare_peer_gives_the_models_answers(models: Path) -> None:
    """Same file, same labels as stored with the variant; malformed input is told, not run."""
    samples = read_samples(Repository(models).open("tiny"))
    with running(bare(models, "tiny", "small")) as server:
        url = server.url + oip.infer_path("tiny")
        index = {"no": 0, "yes": 1}
        answers = [fetch(url, oip.infer_body(samples, row, ())).body for row in range(8)]
        assert samples.predicted["small"][:8].tolist() == [oip.label_of(answer, index) for answer in answers]
        body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[1,2]}]}'
        assert 400 == fetch(url, body).status


def test_the_batching_peer_gives_the_models_answers(models: Path) -> None:
    """The same model behind stock BentoML."""
    with running(bento_batchable(models, "tiny", "large")) as server:
        answer = fetch(f"{server.url}/predict", b'{"rows": [[1, 1, 1, 1], [0, 1, 0, 0]]}', oip.JSON_HEADERS)
    assert 200 == answer.status
    first, second = orjson.loads(answer.body)
    assert (True, False) == (first[1] > first[0], second[1] > second[0])


def test_a_server_that_cannot_start_says_why(models: Path) -> None:
    """The end of its log comes with the message."""
    with pytest.raises(ServerError, match=r"(?s)bare ended with exit code 1.*KeyError: 'medium'"):  # noqa: SIM117 - one line would be too long
        with running(bare(models, "tiny", "medium")):
            raise AssertionError("it started")


FAMILY = Family("tiny", (VariantProfile("only", 0.9, table((1, 4), (0.010, 0.040), (0.020, 0.080))),), sizes=(16, 64))
SAMPLES = Samples("tiny", ("no", "yes"), {}, {}, np.array([0, 1]), np.array([0, 1]), {"only": np.array([0, 1])}, {})


def test_capacity_is_the_rate_of_single_rows() -> None:
    """Half of the samples take 10 ms and half 20 ms, so a slot answers 66.7 a second."""
    assert pytest.approx(1.0 / 0.015) == capacity_per_s(FAMILY, SAMPLES, "only")


REQUESTS = 200


def pinned_runs(machine: Machine, variants: tuple[str, ...], request_s: float) -> list[Pinned]:
    """What a simulated machine would have told of itself, live: scores, and the processor time of its event loop.

    Nothing of it is left to chance, so two hundred requests tell as much as any number.
    """
    family, samples = synthetic()
    arrival_s = np.linspace(0.0, 0.02 * REQUESTS, REQUESTS, endpoint=False)
    even = Workload(arrival_s, np.full(REQUESTS, 5.0), np.arange(REQUESTS))
    runs = []
    for variant in variants:
        simulation = simulate(even, family, samples, Fixed(variant), machine, np.random.default_rng(1))
        judged = score(even, samples.label, simulation.results)
        ways_s = simulation.results.latency_s - simulation.results.total_s
        runs.append(Pinned(variant, even, judged, request_s * len(even), ways_s))
    return runs


def test_calibration_finds_the_machine_again() -> None:
    """Scores of a simulated slow machine behind slow HTTP give back its slowdown, its overheads and their shares."""
    family, samples = synthetic()
    true = Machine(noise=0.0, slowdown=1.3, inbound_s=0.002, outbound_s=0.002, batch_s=0.0003)
    found = calibrate(pinned_runs(true, ("v0", "v2", "v4"), 0.0004), family, samples, 1)
    assert 0.0 == profiled_noise(family)
    assert pytest.approx((1.3, 0.002, 0.002), rel=0.01) == (found.slowdown, found.inbound_s, found.outbound_s)
    assert pytest.approx(0.0003, abs=0.00003) == found.batch_s
    assert pytest.approx([0.004] * 200) == list(found.ways_s)
    assert pytest.approx(0.0004) == found.request_s


def test_calibration_tells_what_a_refusal_costs() -> None:
    """Three requests of five were refused; what the answers did not take of the loop's time, the refusals did."""
    family, samples = synthetic()
    (quiet,) = pinned_runs(Machine(noise=0.0), ("v0",), 0.0004)
    refusing = replace(quiet.live, fates={**quiet.live.fates, Fate.ANSWERED: 0.4, Fate.REFUSED: 0.6})
    overrun = replace(quiet, live=refusing, loop_s=REQUESTS * (0.4 * 0.0004 + 0.6 * 0.0001))
    assert pytest.approx(0.0001) == calibrate([quiet], family, samples, 1, overrun).refused_s
    assert calibrate([quiet], family, samples, 1, quiet).refused_s is None


def test_one_run_is_calibration_enough() -> None:
    """Without a second variant, all is found but what a batch costs beside the model, which counts as none."""
    family, samples = synthetic()
    true = Machine(noise=0.0, slowdown=1.3, inbound_s=0.002, outbound_s=0.002)
    found = calibrate(pinned_runs(true, ("v2",), 0.0004), family, samples, 1)
    assert pytest.approx((1.3, 0.002, 0.0, 0.0004), rel=0.01) == (
        found.slowdown,
        found.inbound_s,
        found.batch_s,
        found.request_s,
    )


def test_a_score_survives_json(tmp_path: Path) -> None:
    """What is written is read back equal, undefined numbers included."""
    workload = Workload(np.array([0.0, 1.0]), np.array([0.1, 0.2]), np.array([0, 1]), "two")
    results = Results.pending(2)
    results.fate[:] = Fate.REFUSED
    judged = score(workload, np.array([0, 1]), results, Sending(np.zeros(2), 0.5, 7))
    write_json(tmp_path / "deep" / "score.json", score_json(judged))
    assert repr(judged) == repr(read_score(tmp_path / "deep" / "score.json"))


def test_something_else_is_not_read_as_a_score(tmp_path: Path) -> None:
    """The message names the file."""
    (tmp_path / "other.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match=r"other\.json: is not a score"):
        read_score(tmp_path / "other.json")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"outputs": []}', b'{"outputs": [{"name": "label", "data": ["maybe"]}]}']
)
def test_answers_without_one_known_label_are_refused(body: bytes) -> None:
    """The start of the answer stands in the message."""
    with pytest.raises(ValueError, match="expected an answer with one known label"):
        oip.label_of(body, {"no": 0, "yes": 1})


def test_server_timing_is_read_in_seconds() -> None:
    """Stages the reader does not know and parts without a duration do no harm."""
    stages = oip.stage_seconds("queue;dur=0.5, cache;desc=hit, total;dur=12")
    assert {"queue": 0.0005, "total": 0.012} == stages


def test_what_does_not_speak_http_is_no_answer() -> None:
    """Somebody else listens on the port, and greets in another protocol."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(b"\xff\x00\x00\x00")

        greeter = threading.Thread(target=greet)
        greeter.start()
        with pytest.raises(OSError, match="does not speak HTTP"):
            fetch(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        greeter.join()
