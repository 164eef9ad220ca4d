"""The gRPC clients that people have: tritonclient's, blocking and asyncio, and kserve's."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from loadtests.servers import Server
from tests.service.test_clients import KSERVE
from variants.repository import Repository


@pytest.fixture
def triton_client(server: Server, grpc_port: int) -> Iterator[triton.InferenceServerClient]:
    """NVIDIA's client, pointed at the gateway."""
    with triton.InferenceServerClient(f"127.0.0.1:{grpc_port}") as client:
        yield client


def rows_of(*first: float) -> triton.InferInput:
    """An input for `sign` with one row for each value; the client sends it raw."""
    given = triton.InferInput("x", [len(first), 4], "FP32")
    given.set_data_from_numpy(np.array([[x0, 0, 0, 0] for x0 in first], np.float32))
    return given


def test_triton_sees_server_and_models(triton_client: triton.InferenceServerClient) -> None:
    """Health, metadata, versions, index and statistics in the shapes that the client reads."""
    assert triton_client.is_server_live()
    assert triton_client.is_server_ready()
    assert triton_client.is_model_ready("sign")
    assert triton_client.is_model_ready("sign", "quick")
    assert not triton_client.is_model_ready("nobody")
    assert not triton_client.is_model_ready("sign", "nobody")
    server = triton_client.get_server_metadata()
    assert (server.name, "binary_tensor_data" in server.extensions) == ("pareto-gateway", True)
    model = triton_client.get_model_metadata("sign")
    assert (list(model.versions), list(model.inputs[0].shape)) == (["quick", "slow"], [-1, 4])
    assert list(triton_client.get_model_metadata("sign", "quick").versions) == ["quick"]
    states = {(entry.name, entry.version): entry.state for entry in triton_client.get_model_repository_index().models}
    assert (states["sign", "quick"], states["dented", "broken"]) == ("READY", "UNAVAILABLE")


@pytest.mark.parametrize("coding", [None, "gzip", "deflate"])
def test_triton_infers(triton_client: triton.InferenceServerClient, coding: str | None) -> None:
    """Raw tensors both ways, compressed or not; priority, timeout and id are understood."""
    wanted = [triton.InferRequestedOutput(name) for name in ("label", "probabilities")]
    result = triton_client.infer(
        "sign",
        [rows_of(1.0, -1.0)],
        model_version="quick",
        outputs=wanted,
        request_id="7",
        priority=1,
        timeout=5_000_000,
        client_timeout=20.0,
        headers={"x-slo-latency-ms": "5000"},
        compression_algorithm=coding,
    )
    assert result.as_numpy("label").tolist() == [b"yes", b"no"]
    assert result.as_numpy("probabilities").shape == (2, 2)
    assert result.as_numpy("confidence") is None
    response = result.get_response()
    assert (response.id, response.model_version, response.parameters["variant"].string_param) == ("7", "quick", "quick")


def test_triton_reads_errors_and_statistics(triton_client: triton.InferenceServerClient) -> None:
    """Errors arrive as the client's exception with code and message; counts grow with requests."""
    wrong = triton.InferInput("y", [1, 4], "FP32")
    wrong.set_data_from_numpy(np.zeros((1, 4), np.float32))
    with pytest.raises(InferenceServerException, match="'y'") as refused:
        triton_client.infer("sign", [wrong])
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
    counts = []
    for _ in range(2):
        triton_client.infer("sign", [rows_of(1.0)], model_version="quick")
        (stats,) = triton_client.get_inference_statistics("sign", "quick").model_stats
        counts.append((stats.inference_stats.success.count, stats.inference_stats.compute_infer.ns > 0))
    assert counts[1] == (counts[0][0] + 1, True)
    assert len(triton_client.get_inference_statistics().model_stats) > 1


def test_tritons_asyncio_client_infers_many_at_a_time(server: Server, grpc_port: int, models: Path) -> None:
    """Sixteen calls at once on one connection, a labelled row each, agree with the truth far above chance."""
    samples = Repository(models).open("digits").samples()
    images, truth = samples["image"][:64].astype(np.float32), samples["label"][:64]

    async def recognised() -> list[int]:
        async with triton_aio.InferenceServerClient(f"127.0.0.1:{grpc_port}") as client:
            several = asyncio.Semaphore(16)

            async def one(image: np.ndarray) -> int:
                given = triton.InferInput("image", [1, 64], "FP32")
                given.set_data_from_numpy(image.reshape(1, 64))
                async with several:
                    return int((await client.infer("digits", [given])).as_numpy("label")[0])

            return await asyncio.gather(*map(one, images))

    got = asyncio.run(recognised())
    assert sum(one == expected for one, expected in zip(got, truth, strict=True)) >= 58


@pytest.mark.skipif(not KSERVE.exists(), reason="kserve's client is not installed: run `make clients`")
def test_kserves_client_infers(server: Server, grpc_port: int) -> None:
    """Health, typed and raw tensors and an error, in the environment that the client wants."""
    script = Path(__file__).with_name("kserve_grpc_client.py")
    command = [str(KSERVE), str(script), f"127.0.0.1:{grpc_port}"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert json.loads(ran.stdout.splitlines()[-1]) == {
        "live": True,
        "ready": True,
        "model_ready": True,
        "answers": [["yes", "no"], ["yes", "no"]],
        "variant": "quick",
        "refused": "NOT_FOUND",
    }
