"""Inference over HTTP: the right answer, by the right variant, with the decision said."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.service.conftest import eventually, samples, sign_body, sound_again
from variants.repository import Repository


def test_digits_are_recognised(client: httpx.Client, models: Path) -> None:
    """Labelled rows in one request get labels that agree with the truth far above chance."""
    rows = Repository(models).open("digits").samples()
    images, truth = rows["image"][:100], rows["label"][:100]
    body = {"inputs": [{"name": "image", "shape": [100, 64], "datatype": "FP32", "data": images.ravel().tolist()}]}
    answer = client.post("/v2/models/digits/infer", json=body)
    assert 200 == answer.status_code, answer.text
    label, confidence, probabilities = answer.json()["outputs"]
    assert sum(int(got) == expected for got, expected in zip(label["data"], truth, strict=True)) >= 90
    assert (label["shape"], confidence["shape"], probabilities["shape"]) == ([100], [100], [100, 10])
    assert all(0.1 <= value <= 1.0 for value in confidence["data"])


def test_the_answer_says_what_was_decided_and_why(client: httpx.Client) -> None:
    """Version, parameters and headers agree on the variant; timings add up; ids are echoed."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"x-request-id": "abc", "traceparent": trace}
    response = client.post("/v2/models/sign/infer", json={"id": "mine", **sign_body(1.0)}, headers=headers)
    body = response.json()
    assert (body["model_name"], body["model_version"], body["id"]) == ("sign", response.headers["x-variant"], "mine")
    # Said only where there was something to decide.
    first_confidence = body["parameters"].pop("first_confidence", None)
    assert (first_confidence is None) == ("x-first-confidence" not in response.headers)
    assert body["parameters"] == {
        "variant": response.headers["x-variant"],
        "route_reason": response.headers["x-route-reason"],
        "slo_met": True,
        "route_path": response.headers["x-route-path"],
        "escalation": response.headers["x-escalation"],
    }
    assert (response.headers["x-request-id"], response.headers["traceparent"]) == ("abc", trace)
    timing = dict(part.strip().split(";dur=") for part in response.headers["server-timing"].split(","))
    assert float(timing["queue"]) + float(timing["compute"]) == pytest.approx(float(timing["total"]), abs=0.01)


@pytest.mark.parametrize("variant", ["quick", "slow"])
def test_a_pinned_version_answers(client: httpx.Client, variant: str) -> None:
    """The version in the path is the variant that answers."""
    response = client.post(f"/v2/models/sign/versions/{variant}/infer", json=sign_body(-1.0))
    assert (response.json()["model_version"], response.headers["x-route-reason"]) == (variant, "pinned")
    assert response.json()["outputs"][0]["data"] == ["no"]


def test_a_loose_slo_gets_the_better_variant_and_a_tight_one_the_quicker(client: httpx.Client) -> None:
    """The SLO in the header decides who answers; the slow variant takes longer than 10 ms on any machine."""
    chosen = {}
    for slo_ms in ("20000", "10"):
        headers = {"x-slo-latency-ms": slo_ms, "x-slo-when-late": "serve"}
        chosen[slo_ms] = client.post("/v2/models/sign/infer", json=sign_body(1.0), headers=headers).headers["x-variant"]
    assert chosen == {"20000": "slow", "10": "quick"}


def test_the_slo_may_also_be_a_parameter(client: httpx.Client) -> None:
    """`parameters.slo_ms` says the same as the header."""
    body = {**sign_body(1.0), "parameters": {"slo_ms": 10, "when_late": "serve"}}
    assert client.post("/v2/models/sign/infer", json=body).headers["x-variant"] == "quick"


def test_an_accuracy_floor_overrides_the_hurry(client: httpx.Client) -> None:
    """A floor above the quick variant's accuracy leaves the slow one; an SLO it cannot meet is refused."""
    headers = {"x-slo-min-accuracy": "0.85"}
    response = client.post("/v2/models/sign/infer", json=sign_body(1.0), headers=headers)
    assert (response.status_code, response.headers["x-variant"]) == (200, "slow")
    refused = client.post("/v2/models/sign/infer", json=sign_body(1.0), headers={**headers, "x-slo-latency-ms": "5"})
    assert (refused.status_code, refused.headers["x-request-dropped-reason"]) == (429, "deadline_infeasible")


def test_a_hopeless_slo_is_refused_or_answered_late_as_asked(client: httpx.Client) -> None:
    """`shed` is 429, without a time to come back as no moment will do; `serve` a late answer that says so."""
    url, headers = "/v2/models/sign/versions/slow/infer", {"x-slo-latency-ms": "1"}
    shed = client.post(url, json=sign_body(1.0), headers=headers)
    assert (shed.status_code, "retry-after" in shed.headers, list(shed.json())) == (429, False, ["error"])
    assert "can ever meet the SLO of 1 ms: the quickest takes" in shed.json()["error"]
    served = client.post(url, json=sign_body(1.0), headers={**headers, "x-slo-when-late": "serve"})
    assert (served.status_code, served.headers["x-slo-met"]) == (200, "false")


def test_the_hard_timeout_is_504(client: httpx.Client) -> None:
    """Who stops waiting after 20 ms is told so, though the model still runs."""
    headers = {"grpc-timeout": "20m", "x-slo-when-late": "serve"}
    response = client.post("/v2/models/sign/versions/slow/infer", json=sign_body(*[1.0] * 4), headers=headers)
    assert (response.status_code, response.headers["x-request-dropped-reason"]) in (
        (504, "timeout"),
        (429, "deadline_infeasible"),
    )


def test_many_rows_are_split_into_batches_and_come_back_in_order(client: httpx.Client) -> None:
    """Thirty rows, batches of at most four: every row has its own answer at its own place."""
    signs = [(-1.0) ** index for index in range(30)]
    response = client.post("/v2/models/sign/versions/quick/infer", json=sign_body(*signs))
    assert response.json()["outputs"][0]["data"] == ["yes" if sign > 0 else "no" for sign in signs]


def test_only_the_outputs_asked_for_come_back(client: httpx.Client) -> None:
    """Named outputs, in the order in which they are named."""
    body = {**sign_body(1.0), "outputs": [{"name": "confidence"}, {"name": "label"}]}
    outputs = client.post("/v2/models/sign/infer", json=body).json()["outputs"]
    assert [output["name"] for output in outputs] == ["confidence", "label"]


def test_a_caller_that_hangs_up_cancels_its_request(client: httpx.Client) -> None:
    """The record says cancelled, and nothing else is disturbed."""
    before = samples(client, model="sign", outcome="cancelled")
    with pytest.raises(httpx.ReadTimeout):
        client.post("/v2/models/sign/versions/slow/infer", json=sign_body(*[1.0] * 40), timeout=0.1)
    eventually(lambda: samples(client, model="sign", outcome="cancelled") == before + 1, "the request is cancelled")


def test_a_model_that_fails_fails_alone(client: httpx.Client) -> None:
    """Logits that are not finite are a 500 with its reason; once the variant has been tried, it answers the next."""
    url = "/v2/models/sign/versions/quick/infer"
    failed = client.post(url, json=sign_body(1.0, second=-1e7))
    assert (failed.status_code, failed.headers["x-request-dropped-reason"]) == (500, "executor_error")
    sound_again(client, "sign", "quick")
    assert client.post(url, json=sign_body(1.0)).status_code == 200


def test_the_class_batch_has_no_slo(client: httpx.Client) -> None:
    """Spare-capacity work is answered, and counts as within an SLO that it does not have."""
    headers = {"x-gateway-inference-objective": "batch"}
    response = client.post("/v2/models/sign/infer", json=sign_body(1.0), headers=headers)
    assert (response.status_code, response.headers["x-route-reason"]) == (200, "spare_capacity")


def test_compressed_requests_and_answers(client: httpx.Client) -> None:
    """A gzip body is understood; a large answer comes compressed where the caller takes it."""
    import gzip

    import orjson

    body = gzip.compress(orjson.dumps(sign_body(*[1.0] * 200)))
    headers = {"content-encoding": "gzip", "accept-encoding": "gzip"}
    response = client.post("/v2/models/sign/versions/quick/infer", content=body, headers=headers)
    assert (response.status_code, response.headers["content-encoding"]) == (200, "gzip")
    assert response.json()["outputs"][0]["data"] == ["yes"] * 200


def test_a_pin_and_a_floor_that_contradict_each_other_are_refused(client: httpx.Client) -> None:
    """The error says how accurate the pinned version is."""
    headers = {"x-slo-min-accuracy": "0.85"}
    response = client.post("/v2/models/sign/versions/quick/infer", json=sign_body(1.0), headers=headers)
    assert response.status_code == 400
    assert "0.8000" in response.json()["error"]


def test_a_load_balancer_gets_a_load_report_if_it_asks(client: httpx.Client) -> None:
    """ORCA, in the form asked for, and none unasked."""
    url = "/v2/models/sign/versions/quick/infer"
    asked = client.post(url, json=sign_body(1.0), headers={"endpoint-load-metrics-format": "JSON"})
    assert asked.headers["endpoint-load-metrics"].startswith("JSON {")
    assert "application_utilization" in asked.headers["endpoint-load-metrics"]
    assert "endpoint-load-metrics" not in client.post(url, json=sign_body(1.0)).headers
