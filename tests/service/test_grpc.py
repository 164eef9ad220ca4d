"""Inference over gRPC: the same answers as over HTTP, on the same terms, with the status codes that clients expect."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pytest

from service.rpc.decode import parameters_of
from service.rpc.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from tests.service.conftest import eventually
from tests.service.grpc_caller import Caller, labels, sign_request
from variants.repository import Repository

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_both_protocols_answer_the_same(caller: Caller, client: httpx.Client, models: Path) -> None:
    """One variant, the same hundred rows: equal probabilities, whether raw, typed or as JSON."""
    rows = Repository(models).open("digits").samples()["image"][:100].astype(np.float32)
    variant = client.get("/v2/models/digits").json()["versions"][0]
    tensor = {"name": "image", "datatype": "FP32", "shape": [100, 64]}
    numbers = rows.ravel().tolist()
    raw = ModelInferRequest(
        model_name="digits", model_version=variant, inputs=[tensor], raw_input_contents=[rows.tobytes()]
    )
    typed = ModelInferRequest(
        model_name="digits", model_version=variant, inputs=[{**tensor, "contents": {"fp32_contents": numbers}}]
    )
    body = {"inputs": [{**tensor, "data": numbers}]}
    patient = {"x-slo-latency-ms": "20000"}
    said = client.post(f"/v2/models/digits/versions/{variant}/infer", json=body, headers=patient).json()["outputs"]
    expected = np.array(said[2]["data"], np.float32)
    from_raw, _ = caller.infer(raw, list(patient.items()))
    from_typed, _ = caller.infer(typed, list(patient.items()))
    assert [output.name for output in from_raw.outputs] == [output["name"] for output in said]
    assert np.array_equal(expected, np.frombuffer(from_raw.raw_output_contents[2], np.float32))
    assert np.array_equal(expected, np.array(from_typed.outputs[2].contents.fp32_contents, np.float32))
    assert said[0]["data"] == labels(from_typed)
    assert list(from_typed.outputs[2].shape) == [100, 10]


def test_the_answer_says_what_was_decided_and_why(caller: Caller) -> None:
    """Version, parameters and metadata agree on the variant; timings add up; ids are echoed."""
    request = sign_request(1.0)
    request.id = "mine"
    answer, said = caller.infer(request, [("x-request-id", "abc"), ("traceparent", TRACE)])
    parameters = dict(parameters_of(answer.parameters))
    first_confidence = parameters.pop("first_confidence", None)
    assert (answer.model_name, answer.model_version, answer.id) == ("sign", said["x-variant"], "mine")
    assert (first_confidence is None) == ("x-first-confidence" not in said)
    assert parameters == {
        "variant": said["x-variant"],
        "route_reason": said["x-route-reason"],
        "slo_met": True,
        "route_path": said["x-route-path"],
        "escalation": said["x-escalation"],
    }
    assert (said["x-request-id"], said["traceparent"], said["x-slo-met"]) == ("abc", TRACE, "true")
    timing = dict(part.strip().split(";dur=") for part in said["server-timing"].split(","))
    assert float(timing["queue"]) + float(timing["compute"]) == pytest.approx(float(timing["total"]), abs=0.01)


def test_a_load_balancer_that_asks_is_told_of_the_load(caller: Caller) -> None:
    """ORCA's report comes behind the answer, where a call asks for it."""
    _, asked = caller.infer(sign_request(1.0), [("endpoint-load-metrics-format", "json")])
    _, silent = caller.infer(sign_request(1.0))
    assert asked["endpoint-load-metrics"].startswith("JSON {")
    assert "endpoint-load-metrics" not in silent


@pytest.mark.parametrize(("slo_ms", "variant"), [("20000", "slow"), ("10", "quick")])
def test_the_slo_in_the_metadata_decides_who_answers(caller: Caller, slo_ms: str, variant: str) -> None:
    """The names are those of the HTTP headers."""
    answer, _ = caller.infer(sign_request(-1.0), [("x-slo-latency-ms", slo_ms), ("x-slo-when-late", "serve")])
    assert (answer.model_version, labels(answer)) == (variant, ["no"])


def test_terms_may_also_be_parameters(caller: Caller) -> None:
    """`slo_ms` and `when_late` decide as they do in JSON; a floor leaves the slow variant."""
    hurried, _ = caller.infer(sign_request(1.0, slo_ms=10, when_late="serve"))
    careful, _ = caller.infer(sign_request(1.0), [("x-slo-min-accuracy", "0.85")])
    assert [hurried.model_version, careful.model_version] == ["quick", "slow"]


def test_many_rows_come_back_in_order(caller: Caller) -> None:
    """Every row has its own answer at its own place."""
    signs = [(-1.0) ** index for index in range(30)]
    answer, _ = caller.infer(sign_request(*signs, variant="quick"))
    assert labels(answer) == ["yes" if sign > 0 else "no" for sign in signs]


def test_calls_that_come_together_share_a_batch(caller: Caller, client: httpx.Client) -> None:
    """Many at a time on one connection, a row each, are answered by fewer batches than there are calls."""
    request, patient = sign_request(1.0, variant="quick"), [("x-slo-latency-ms", "20000")]

    def ran() -> tuple[float, float]:
        lines = client.get("/metrics").text.splitlines()
        of_variant = [line for line in lines if 'model="sign"' in line and 'variant="quick"' in line]
        batches, rows = (
            sum(float(line.split()[-1]) for line in of_variant if line.startswith(f"pareto_batch_rows_{what}{{"))
            for what in ("count", "sum")
        )
        return batches, rows

    batches_before, rows_before = ran()

    def shared() -> bool:
        for call in [caller.start("ModelInfer", request, ModelInferResponse, patient) for _ in range(32)]:
            call.result()
        batches, rows = ran()
        return rows - rows_before > batches - batches_before

    eventually(shared, "a batch has more than one row")
