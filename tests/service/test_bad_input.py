"""Bad input gets a clear 4xx that names the field, and harms nobody else."""

from __future__ import annotations

import gzip
import socket
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from loadtests.servers import Server
from tests.service.conftest import sign_body

URL = "/v2/models/sign/infer"


def with_input(**changes: Any) -> bytes:
    """A sound body with fields of its input replaced."""
    return orjson.dumps({"inputs": [{**sign_body(1.0)["inputs"][0], **changes}]})  # type: ignore[index]  # a list


BAD = {
    "truncated": (b'{"inputs": [', "body"),
    "empty": (b"", "body"),
    "not_an_object": (b"[]", "body"),
    "deep": (b"[" * 100_000, "body"),
    "not_utf8": (b'{"inputs": "\xff"}', "body"),
    "no_inputs": (b"{}", "inputs"),
    "empty_inputs": (b'{"inputs": []}', "inputs"),
    "unknown_name": (with_input(name="y"), "name"),
    "wrong_datatype": (with_input(datatype="INT64"), "datatype"),
    "made_up_datatype": (with_input(datatype="FP99"), "datatype"),
    "empty_batch": (with_input(shape=[0, 4], data=[]), "shape"),
    "wrong_width": (with_input(shape=[1, 5], data=[0.0] * 5), "shape"),
    "wrong_rank": (with_input(shape=[4]), "shape"),
    "negative": (with_input(shape=[-1, 4]), "shape"),
    "gigantic": (with_input(shape=[2**60, 4]), "shape"),
    "too_many_rows": (with_input(shape=[5000, 4], data=[0.0] * 20_000), "rows"),
    "short_data": (with_input(data=[1.0]), "data"),
    "text_data": (with_input(data=["a", "b", "c", "d"]), "data"),
    "ragged_data": (with_input(shape=[2, 4], data=[[1.0, 2.0], [3.0]]), "data"),
    "huge_number": (with_input(data=[0, 0, 0, 0]).replace(b"[0,0,0,0]", b"[1e999,0,0,0]"), "body"),
    "nan": (with_input(data=[0, 0, 0, 0]).replace(b"[0,0,0,0]", b"[NaN,0,0,0]"), "body"),
    "unknown_output": (orjson.dumps({**sign_body(1.0), "outputs": [{"name": "z"}]}), "outputs"),
    "bad_slo": (orjson.dumps({**sign_body(1.0), "parameters": {"slo_ms": -1}}), "slo_ms"),
    "bad_floor": (orjson.dumps({**sign_body(1.0), "parameters": {"min_accuracy": 1.5}}), "min_accuracy"),
    "floor_out_of_reach": (
        orjson.dumps({**sign_body(1.0), "parameters": {"min_accuracy": 0.99}}),
        "parameters.min_accuracy",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_body_is_a_400_that_names_the_field(client: httpx.Client, name: str) -> None:
    """The error is one line under the key that clients read."""
    content, field = BAD[name]
    response = client.post(URL, content=content)
    assert response.status_code == 400
    message = response.json()["error"]
    assert field in message
    assert len(message) < 500
    assert "\n" not in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-slo-latency-ms", "soon"),
        ("x-slo-latency-ms", "-5"),
        ("x-slo-latency-ms", "0"),
        ("x-slo-latency-ms", "nan"),
        ("x-slo-latency-ms", ""),
        ("x-slo-min-accuracy", "2"),
        ("x-slo-min-accuracy", "0.99"),
        ("x-slo-when-late", "maybe"),
        ("grpc-timeout", "5"),
        ("x-envoy-expected-rq-timeout-ms", "inf"),
        ("x-request-timeout-seconds", "-1"),
        ("inference-header-content-length", "99999"),
        ("inference-header-content-length", "-1"),
        ("inference-header-content-length", "x"),
    ],
)
def test_a_malformed_header_is_a_400_that_names_it(client: httpx.Client, header: str, value: str) -> None:
    """Which header, what was expected and what came."""
    response = client.post(URL, json=sign_body(1.0), headers={header: value, "x-request-id": "mine"})
    assert response.status_code == 400
    assert header in response.json()["error"].lower()
    assert response.headers["x-request-id"] == "mine"


def test_who_has_a_malformed_id_is_given_one(client: httpx.Client) -> None:
    """So that a caller can tell of any refusal which it was."""
    response = client.post(URL, json=sign_body(1.0), headers={"x-request-id": "x" * 500})
    assert response.status_code == 400
    assert "-" in response.headers["x-request-id"]


def test_binary_tensors_that_lie_are_refused(client: httpx.Client) -> None:
    """Too short, too long, and not a number."""
    good = np.zeros((1, 4), np.float32).tobytes()
    nan = np.full((1, 4), np.nan, np.float32).tobytes()
    for size, blob in ((16, good[:8]), (8, good), (16, good + b"more"), (2**40, good), (-16, good), (16, nan)):
        head = orjson.dumps(
            {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": size}}]}
        )
        headers = {"inference-header-content-length": str(len(head))}
        response = client.post(URL, content=head + blob, headers=headers)
        assert response.status_code == 400
        assert "'x'" in response.json()["error"] or "body" in response.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v2/models/nobody/infer", 404),
        ("POST", "/v2/models/sign/versions/nobody/infer", 404),
        ("POST", "/v2/models/digits/versions/wide-int8/infer", 404),
        ("GET", "/v2/models/nobody", 404),
        ("GET", "/v2/models/nobody/ready", 404),
        ("GET", "/v2/models/sign/infer", 405),
        ("POST", "/v2/models/sign", 405),
        ("DELETE", "/v2", 405),
        ("GET", "/nowhere", 404),
        ("GET", "/v2/nowhere", 404),
        ("GET", "/v2/models/sign/versions", 404),
        ("GET", "/static_content/x", 404),
        ("POST", "/v2/repository/models/sign/unload", 403),
    ],
)
def test_what_is_not_there_is_said_so(client: httpx.Client, method: str, path: str, status: int) -> None:
    """Unknown models, versions, paths and methods have their own status and a message."""
    response = client.request(method, path)
    assert response.status_code == status
    assert response.json()["error"]


def test_a_body_over_the_limit_is_refused_before_it_is_read(client: httpx.Client) -> None:
    """Declared, streamed or unpacked: 413 in each case."""
    limit = 16 * 1024 * 1024
    declared = client.post(URL, content=b" " * (limit + 1))
    streamed = client.post(URL, content=(b" " * 65536 for _ in range(limit // 65536 + 1)))
    bomb = client.post(URL, content=gzip.compress(b" " * (limit + 1)), headers={"content-encoding": "gzip"})
    assert [response.status_code for response in (declared, streamed, bomb)] == [413, 413, 413]


def test_json_that_would_hold_up_the_parser_is_refused_unparsed(client: httpx.Client) -> None:
    """Too much of it is 413, too many lists in it 400; raw tensors of the same size are fine."""
    large = client.post(URL, content=b'{"inputs":[' + b" " * (3 * 1024 * 1024) + b"]}")
    nested = client.post(URL, content=b'{"inputs":[' + b"[]," * 100_000 + b"[]]}")
    assert (large.status_code, nested.status_code) == (413, 400)
    assert "raw tensors" in large.json()["error"]
    assert "lists" in nested.json()["error"]


def test_the_native_api_bounds_bodies_too(client: httpx.Client) -> None:
    """BentoML's own paths read a body only within the limit."""
    declared = client.post("/classify", content=b" " * (16 * 1024 * 1024 + 1))
    assert (declared.status_code, list(declared.json())) == (413, ["error"])


def test_corrupt_and_unknown_compression(client: httpx.Client) -> None:
    """Corrupt data is a 400, an unknown coding a 415."""
    corrupt = client.post(URL, content=b"nonsense", headers={"content-encoding": "gzip"})
    unknown = client.post(URL, content=b"nonsense", headers={"content-encoding": "br"})
    assert (corrupt.status_code, unknown.status_code) == (400, 415)


def series(client: httpx.Client) -> set[str]:
    """Every series of the exposition, without its value."""
    return {line.rpartition(" ")[0] for line in client.get("/metrics").text.splitlines() if not line.startswith("#")}


def test_paths_that_a_caller_makes_up_do_not_grow_the_metrics(client: httpx.Client) -> None:
    """A thousand different paths, models, versions, tenants and classes leave as many lines as one."""
    client.get("/made-up/0")
    client.post("/v2/models/made-up-0/infer")
    headers = {"x-gateway-inference-fairness-id": "t0", "x-gateway-inference-objective": "c0"}
    client.post("/v2/models/sign/versions/quick/infer", json=sign_body(1.0), headers=headers)
    before = series(client)
    for number in range(1000):
        client.get(f"/made-up/{number}")
        client.post(f"/v2/models/made-up-{number}/infer")
    for number in range(50):
        headers = {"x-gateway-inference-fairness-id": f"t{number}", "x-gateway-inference-objective": f"c{number}"}
        client.post("/v2/models/sign/versions/quick/infer", json=sign_body(1.0), headers=headers)
    assert series(client) - before == set()


def test_garbage_on_the_socket_hurts_nobody(client: httpx.Client, server: Server) -> None:
    """Half a request, a request that is no HTTP, and hanging up in the body."""
    host, port = server.url.removeprefix("http://").split(":")
    for garbage in (
        b"\x00\xff\x00\xff\r\n\r\n",
        b"POST /v2/models/sign/infer HTTP/1.1\r\ncontent-length: 100\r\n\r\n{",
        b"POST /v2/models/sign/infer HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
    ):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(garbage)
    assert client.post(URL, json=sign_body(1.0)).status_code == 200


HOPELESS = {"x-slo-latency-ms": "0.001"}
"""Over before anybody looks."""


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (URL, b"no JSON at all", 429),
        (URL, b'{"parameters": {"priority"', 400),
        (URL, b'{"parameters": {"when_late"', 400),
        (URL, b'{"parameters": {"when\\u005flate"', 400),
        ("/v2/models/sign/versions/quick/infer", b"no JSON at all", 400),
    ],
)
def test_what_cannot_be_in_time_is_refused_before_it_is_decoded(
    server: Server, path: str, body: bytes, status: int
) -> None:
    """But where the body may say that it goes first, or may be late, it is read; and so it is for a pinned variant.

    That is while others are refused.
    """
    assert httpx.post(server.url + URL, json=sign_body(1.0), headers=HOPELESS).status_code == 429
    assert httpx.post(server.url + path, content=body, headers=HOPELESS).status_code == status


def test_a_refusal_before_decoding_is_counted(server: Server) -> None:
    """As any other that has no time left, and it says why."""

    def count() -> float:
        lines = httpx.get(f"{server.url}/metrics").text.splitlines()
        wanted = [line for line in lines if line.startswith("pareto_requests_total") and "deadline_infeasible" in line]
        return sum(float(line.rpartition(" ")[2]) for line in wanted)

    before = count()
    answer = httpx.post(server.url + URL, json=sign_body(1.0), headers=HOPELESS)
    assert (answer.status_code, answer.headers["x-request-dropped-reason"]) == (429, "deadline_infeasible")
    assert count() == before + 1
