"""The clients that people have: tritonclient, BentoML's own, and what curl would read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import bentoml
import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from loadtests.servers import Server, gateway, running
from tests.service.conftest import sound_again
from variants.repository import Repository

KSERVE = Path(sys.prefix) / "kserve" / "bin" / "python"


@pytest.fixture
def triton_client(server: Server) -> triton.InferenceServerClient:
    """NVIDIA's client, pointed at the gateway."""
    return triton.InferenceServerClient(server.url.removeprefix("http://"), network_timeout=30.0)


def test_triton_sees_server_and_models(triton_client: triton.InferenceServerClient) -> None:
    """Health, metadata, versions and index in the shapes that the client checks."""
    assert triton_client.is_server_live()
    assert triton_client.is_server_ready()
    assert triton_client.is_model_ready("sign")
    assert triton_client.is_model_ready("sign", "quick")
    assert not triton_client.is_model_ready("nobody")
    server = triton_client.get_server_metadata()
    assert (server["name"], "binary_tensor_data" in server["extensions"]) == ("pareto-gateway", True)
    model = triton_client.get_model_metadata("sign")
    assert (model["versions"], model["inputs"][0]["shape"]) == (["quick", "slow"], [-1, 4])
    states = {(entry["name"], entry["version"]): entry["state"] for entry in triton_client.get_model_repository_index()}
    assert states["sign", "quick"] == "READY"


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("coding", [None, "gzip", "deflate"])
def test_triton_infers(
    triton_client: triton.InferenceServerClient, binary_in: bool, binary_out: bool, coding: str | None
) -> None:
    """JSON and raw tensors, both ways, compressed or not, give the same answer."""
    rows = np.array([[1, 0, 0, 0], [-1, 0, 0, 0]], np.float32)
    given = triton.InferInput("x", [2, 4], "FP32")
    given.set_data_from_numpy(rows, binary_data=binary_in)
    wanted = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("label", "probabilities")]
    result = triton_client.infer(
        "sign",
        [given],
        model_version="quick",
        outputs=wanted,
        request_id="7",
        request_compression_algorithm=coding,
        response_compression_algorithm=coding,
    )
    labels = result.as_numpy("label")
    assert [label if isinstance(label, str) else label.decode() for label in labels] == ["yes", "no"]
    assert result.as_numpy("probabilities").shape == (2, 2)
    assert (result.get_response()["id"], result.get_response()["model_version"]) == ("7", "quick")


def test_triton_asks_for_everything_as_raw_tensors_by_default(triton_client: triton.InferenceServerClient) -> None:
    """Without named outputs the client wants all of them, binary; priority and timeout are understood."""
    given = triton.InferInput("x", [1, 4], "FP32")
    given.set_data_from_numpy(np.array([[1, 0, 0, 0]], np.float32))
    result = triton_client.infer("sign", [given], priority=1, timeout=5_000_000)
    assert result.as_numpy("label")[0] == b"yes"
    assert result.as_numpy("confidence").dtype == np.float32


def test_triton_reads_errors_and_statistics(triton_client: triton.InferenceServerClient) -> None:
    """Errors arrive as the client's exception with our message; counts grow with requests."""
    given = triton.InferInput("y", [1, 4], "FP32")
    given.set_data_from_numpy(np.zeros((1, 4), np.float32))
    with pytest.raises(InferenceServerException, match="'y'"):
        triton_client.infer("sign", [given])
    given = triton.InferInput("x", [1, 4], "FP32")
    given.set_data_from_numpy(np.zeros((1, 4), np.float32))
    counts = []
    for _ in range(2):
        triton_client.infer("sign", [given], model_version="quick")
        (stats,) = triton_client.get_inference_statistics("sign", "quick")["model_stats"]
        counts.append(stats["inference_stats"]["success"]["count"])
    assert counts[1] == counts[0] + 1


@pytest.mark.skipif(not KSERVE.exists(), reason="kserve's client is not installed: run `make clients`")
def test_kserves_client_infers(server: Server) -> None:
    """Health, JSON and raw tensors through kserve's inference client, in the environment that it wants."""
    script = Path(__file__).with_name("kserve_client.py")
    ran = subprocess.run([KSERVE, script, server.url], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert json.loads(ran.stdout.splitlines()[-1]) == {
        "live": True,
        "ready": True,
        "model_ready": True,
        "answers": [["yes", "no"], ["yes", "no"]],
    }


def test_bentomls_client_calls_the_native_api(server: Server, models: Path) -> None:
    """`bentoml.SyncHTTPClient` lists the families and classifies."""
    rows = Repository(models).open("digits").samples()
    with bentoml.SyncHTTPClient(server.url) as client:
        assert client.families()["sign"] == ["quick", "slow"]
        answer = client.classify(model="digits", rows=rows["image"][:1].tolist(), slo_ms=5000)
    assert len(answer["labels"]) == len(answer["confidences"]) == 1
    assert answer["slo_met"] is True
    assert answer["path"][-1] == answer["variant"]
    assert (answer["first_confidence"] is None) == (answer["escalation"] == "none")


def test_bentomls_client_reads_our_errors(server: Server) -> None:
    """An unknown model is BentoML's NotFound with our message."""
    with bentoml.SyncHTTPClient(server.url) as client, pytest.raises(bentoml.exceptions.NotFound, match="nobody"):
        client.classify(model="nobody", rows=[[0.0]])


NATIVE_REFUSALS: dict[str, tuple[dict[str, object], int]] = {
    "no_rows": ({"rows": []}, 400),
    "too_many_rows": ({"rows": [[0.0] * 4] * 1025}, 400),
    "no_numbers": ({"rows": [["a", "b", "c", "d"]]}, 400),
    "gigantic_numbers": ({"rows": [[10**400, 0, 0, 0]]}, 400),
    "infinite_as_float32": ({"rows": [[1e300, 0, 0, 0]] * 100}, 400),
    "too_narrow": ({"rows": [[0.0]]}, 400),
    "bad_slo": ({"slo_ms": -1}, 400),
    "bad_when_late": ({"when_late": "maybe"}, 400),
    "bad_timeout": ({"timeout_ms": 0}, 400),
    "unknown_variant": ({"variant": "nobody"}, 404),
    "unknown_model": ({"model": "nobody"}, 404),
    "hopeless_slo": ({"variant": "slow", "slo_ms": 1}, 429),
    "model_fails": ({"variant": "quick", "rows": [[1.0, -1e7, 0.0, 0.0]]}, 500),
    "timeout": ({"variant": "slow", "rows": [[1.0] * 4] * 4, "timeout_ms": 20, "when_late": "serve"}, 504),
}


@pytest.mark.parametrize("name", NATIVE_REFUSALS)
def test_the_native_api_keeps_the_protocols_statuses(client: httpx.Client, name: str) -> None:
    """What the open protocol answers 400, 404, 429, 500 and 504 is answered so here."""
    changes, status = NATIVE_REFUSALS[name]
    body = {"model": "sign", "rows": [[1.0, 0.0, 0.0, 0.0]], **changes}
    response = client.post("/classify", json=body)
    # The driver may see before the start that a timeout so short cannot be kept.
    assert response.status_code in ((429, 504) if status == 504 else (status,))
    sound_again(client, "sign", "quick")


def test_the_native_api_says_when_to_come_back(models: Path) -> None:
    """A row in fifty seconds, and one at once: the second is told so; what is wrong with a request will stay so."""
    quotas = {"PARETO_SLOTS": "1", "PARETO_TENANTS": '{"default": {"rate": 0.02, "burst": 1}}'}
    body = {"model": "sign", "rows": [[1.0, 0.0, 0.0, 0.0]], "variant": "quick"}
    with running(gateway(models, quotas)) as server, httpx.Client(base_url=server.url, timeout=30.0) as client:
        wrong = client.post("/classify", json={**body, "model": "nobody"})
        assert (wrong.status_code, "retry-after" in wrong.headers) == (404, False)
        assert client.post("/classify", json=body).status_code == 200
        refused = client.post("/classify", json=body)
    assert (refused.status_code, refused.headers["x-request-dropped-reason"]) == (429, "quota")
    assert 40 <= int(refused.headers["retry-after"]) <= 50


def test_the_native_api_answers_late_where_asked(client: httpx.Client) -> None:
    """`when_late=serve` turns a refusal into an answer that says it is late; a long list keeps its order."""
    rows = [[(-1.0) ** index, 0.0, 0.0, 0.0] for index in range(100)]
    body = {"model": "sign", "rows": rows, "variant": "quick", "slo_ms": 0.01, "when_late": "serve"}
    answer = client.post("/classify", json=body).json()
    assert (answer["labels"], answer["slo_met"]) == (["yes", "no"] * 50, False)


def test_bentomls_own_pages_ignore_headers_that_mean_nothing_to_them(client: httpx.Client) -> None:
    """A header that the open protocol refuses is no reason to refuse the page or the native API."""
    headers = {"x-slo-latency-ms": "soon", "grpc-timeout": "?"}
    body = {"model": "sign", "rows": [[1.0, 0.0, 0.0, 0.0]]}
    assert client.get("/native", headers=headers).status_code == 200
    assert client.post("/classify", json=body, headers=headers).json()["labels"] == ["yes"]


FIXED = ("/metrics", "/livez", "/readyz", "/healthz", "/v2/health/live", "/v2/health/ready")


@pytest.mark.parametrize("path", FIXED)
def test_fixed_paths_take_get_and_head_alone(client: httpx.Client, path: str) -> None:
    """HEAD answers without a body; other methods are 405 with the method that is allowed."""
    head, post = client.head(path), client.post(path)
    assert (head.status_code, head.content) == (200, b"")
    assert (post.status_code, post.headers["allow"], list(post.json())) == (405, "GET", ["error"])


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v2/repository/models/sign/load", "POST"),
        ("GET", "/v2/repository/models/sign/unload", "POST"),
        ("GET", "/v2/repository/index", "POST"),
        ("GET", "/v2/models/sign/infer", "POST"),
        ("POST", "/v2/models/load", "GET"),
        ("DELETE", "/v2/models/sign/stats", "GET"),
    ],
)
def test_the_wrong_method_is_told_the_right_one(client: httpx.Client, method: str, path: str, allow: str) -> None:
    """405 names the method in `Allow`, whatever a model may be called."""
    response = client.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allow)


def test_the_index_says_why_without_folders_of_the_machine(client: httpx.Client, models: Path) -> None:
    """A refused variant is told with its file's name inside the revision."""
    entries = client.post("/v2/repository/index").json()
    reasons = {(entry["name"], entry["version"]): entry["reason"] for entry in entries}
    assert reasons["dented", "broken"].startswith("broken/model.onnx: has ")
    assert reasons["dented", "sound"] == ""
    assert not [reason for reason in reasons.values() if str(models) in reason]


def test_health_and_docs_pages(client: httpx.Client) -> None:
    """BentoML's health paths answer beside the protocol's, and its docs page is still there."""
    page = ("/native", "/docs.json", "/static_content/swagger-ui-bundle.js")
    paths = ("/livez", "/readyz", "/healthz", "/v2/health/live", "/v2/health/ready", *page)
    assert [client.get(path).status_code for path in paths] == [200] * len(paths)
