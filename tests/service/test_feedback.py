"""Feedback: what was answered is judged by what is said afterwards, once, and nothing else is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from router.contract import Record
from router.words import Escalation, Outcome, Reason
from service.feedback import ENTRY_BYTES, ROW_BYTES, Feedback
from service.oip.errors import ProtocolError
from service.work import Answer
from tests.service.conftest import sign_body
from variants.preparation import Answers
from variants.repository import Repository

LABELS = ("no", "yes")


def counted(client: httpx.Client, name: str, **labels: str) -> dict[str, float]:
    """The samples of that name by variant."""
    return {
        sample.labels.get("variant", ""): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    }


def judge(client: httpx.Client, model: str, *answers: tuple[str, Sequence[Any]]) -> Any:
    told = {"answers": [{"id": name, "labels": list(labels)} for name, labels in answers]}
    response = client.post(f"/v2/models/{model}/feedback", json=told)
    assert response.status_code == 200, response.text
    return response.json()


def answered(*labels: int, variant: str = "small") -> Answer:
    rows = len(labels)
    record = Record(
        1,
        "f",
        "1",
        variant,
        (variant,) * rows,
        (variant,),
        Outcome.SERVED,
        Reason.FIXED,
        rows,
        0.0,
        0.0,
        0.0,
        0.0,
        1.0,
        True,
        0.9,
        rows,
        "a",
        "default",
        0.0,
        0.0,
        0.9,
        Escalation.NONE,
    )
    return Answer(record, Answers(np.array(labels), np.ones((rows, 2), np.float32), np.ones(rows, np.float32)))


def test_measured_accuracy_is_what_was_answered(client: httpx.Client, models: Path) -> None:
    """A hundred labelled digits, pinned and routed: each variant's right answers are counted as they were."""
    samples = Repository(models).open("digits").samples()
    manifest = Repository(models).open("digits").manifest
    (tensor,) = manifest.inputs
    rows, labels = samples[tensor.name][:100], samples["label"][:100]
    cheapest = client.get("/v2/models/digits").json()["versions"][0]
    expected: dict[str, list[int]] = {}
    told: list[tuple[str, list[Any]]] = []
    for start in range(0, 100, 5):
        part, truth = rows[start : start + 5], labels[start : start + 5].tolist()
        pin = f"/versions/{cheapest}" if start % 10 else ""
        body = {
            "id": f"digits-{start}",
            "inputs": [
                {
                    "name": tensor.name,
                    "shape": list(part.shape),
                    "datatype": tensor.datatype,
                    "data": part.ravel().tolist(),
                }
            ],
        }
        response = client.post(f"/v2/models/digits{pin}/infer", json=body).raise_for_status()
        said, outputs = response.json()["parameters"], response.json()["outputs"]
        (given,) = (output["data"] for output in outputs if output["name"] == "label")
        variants = said["row_variants"].split(",") if "row_variants" in said else [said["variant"]] * 5
        for variant, label, right in zip(variants, given, truth, strict=True):
            expected.setdefault(variant, []).append(manifest.labels[right] == label)
        # By the id of the body or of the header, as names or as indices.
        name = f"digits-{start}" if start % 3 else response.headers["x-request-id"]
        told.append((name, [manifest.labels[right] if start % 2 else right for right in truth]))
    reply = judge(client, "digits", *told)
    right = sum(map(sum, expected.values()))
    assert reply == {
        "model_name": "digits",
        "answers": 20,
        "rows": 100,
        "correct": right,
        "unknown": 0,
        "unknown_ids": [],
    }
    assert right >= 80, "the family is better than chance"
    sums = {variant: float(sum(found)) for variant, found in expected.items()}
    assert counted(client, "pareto_feedback_correct_total", model="digits") == sums
    rows_by_variant = {variant: float(len(found)) for variant, found in expected.items()}
    assert counted(client, "pareto_feedback_rows_total", model="digits") == rows_by_variant
    accuracy = counted(client, "pareto_feedback_accuracy_ratio", model="digits")
    assert accuracy == pytest.approx({variant: float(np.mean(found)) for variant, found in expected.items()})


def test_an_answer_is_judged_once_and_unknown_ids_are_said(client: httpx.Client) -> None:
    """Ids that nobody gave, of another family, or that were judged before, count as unknown and are named."""
    before = counted(client, "pareto_feedback_unknown_total", model="sign").get("", 0.0)
    first = client.post("/v2/models/sign/infer", json=sign_body(1.0, -1.0)).headers["x-request-id"]
    assert judge(client, "sign", (first, ["yes", None]), ("nobody", ["no"]))["unknown_ids"] == ["nobody"]
    assert judge(client, "sign", (first, ["yes", "no"]))["unknown_ids"] == [first]
    other = client.post("/v2/models/sign/infer", json=sign_body(1.0)).headers["x-request-id"]
    assert judge(client, "digits", (other, [0]))["unknown"] == 1
    assert judge(client, "sign", (other, ["no"]), (other, ["yes"])) | {"unknown_ids": 0} == {
        "model_name": "sign",
        "answers": 1,
        "rows": 1,
        "correct": 0,
        "unknown": 1,
        "unknown_ids": 0,
    }
    assert counted(client, "pareto_feedback_unknown_total", model="sign")[""] == before + 3


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{", "body: expected JSON"),
        ("[]", "answers: expected a list of objects with id and labels, got null"),
        ('{"answers": [3]}', "answers[0].id: expected a string, got null"),
        ('{"answers": [{"id": "x"}]}', "answers[0].labels: expected a list, got null"),
        (
            '{"answers": [{"id": "ID", "labels": ["maybe", 1]}]}',
            "answers[0].labels[0]: expected null, an index below 2 or",
        ),
        (
            '{"answers": [{"id": "ID", "labels": [true, 1]}]}',
            "answers[0].labels[0]: expected null, an index below 2 or",
        ),
        ('{"answers": [{"id": "ID", "labels": [2, 1]}]}', "answers[0].labels[0]: expected null, an index below 2 or"),
        ('{"answers": [{"id": "ID", "labels": [1]}]}', "answers[0].labels: expected 2 labels, one for each row"),
    ],
)
def test_a_body_with_a_fault_counts_nothing(client: httpx.Client, body: str, said: str) -> None:
    """It is a 400 that names the field; the answer can still be judged afterwards."""
    name = client.post("/v2/models/sign/infer", json=sign_body(1.0, -1.0)).headers["x-request-id"]
    response = client.post("/v2/models/sign/feedback", content=body.replace("ID", name))
    assert (response.status_code, response.json()["error"][: len(said)]) == (400, said)
    assert judge(client, "sign", (name, ["yes", "no"]))["correct"] == 2


@pytest.mark.parametrize(("method", "model", "status"), [("POST", "nobody", 404), ("GET", "sign", 405)])
def test_feedback_has_one_place(client: httpx.Client, method: str, model: str, status: int) -> None:
    """An unknown model and another method are told so."""
    response = client.request(method, f"/v2/models/{model}/feedback", content='{"answers": []}')
    assert response.status_code == status


def test_an_answer_is_forgotten_in_time() -> None:
    """One second past its time it is unknown; the one after it is not."""
    feedback = Feedback(10_000, 60.0, 3600.0)
    feedback.remember("f", "old", answered(1), 0.0)
    feedback.remember("f", "new", answered(1), 30.0)
    reply = feedback.judge("f", LABELS, b'{"answers":[{"id":"old","labels":[1]},{"id":"new","labels":[1]}]}', 61.0)
    assert b'"unknown_ids":["old"]' in reply
    assert [(counts.rows, counts.correct) for _, _, counts in feedback.counts()] == [(1, 1)]


def test_tenants_may_use_the_same_ids() -> None:
    """Neither makes the other's answer forgotten; who speaks for everybody means the last one."""
    feedback, told = Feedback(10_000, 60.0, 3600.0), b'{"answers":[{"id":"same","labels":[1]}]}'
    for tenant in ("a", "b", "a"):
        answer = answered(1)
        feedback.remember("f", "same", answer._replace(record=answer.record._replace(tenant=tenant)), 0.0)
    assert feedback.remembered == 2
    known = [orjson.loads(feedback.judge("f", LABELS, told, 1.0, tenant))["answers"] for tenant in ("", "a", "b", "b")]
    assert known == [1, 0, 1, 0]
    assert (feedback.remembered, feedback._held_bytes, feedback._latest) == (0, 0, {})


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 40)), max_size=60), st.integers(0, 5000))
def test_memory_is_bounded(answers: list[tuple[str, int]], limit_bytes: int) -> None:
    """What is remembered never takes more than allowed, and the last answer that fits is remembered."""
    feedback = Feedback(limit_bytes, 60.0, 3600.0)
    for name, rows in answers:
        feedback.remember("f", name, answered(*[1] * rows), 0.0)
        size_bytes = ENTRY_BYTES + len(name) + ROW_BYTES * rows
        assert feedback.remembered * ENTRY_BYTES <= limit_bytes
        assert (("f", "a", name) in feedback._given) >= (size_bytes <= limit_bytes)
        assert feedback._held_bytes == sum(given.size_bytes for given in feedback._given.values()) <= limit_bytes


def test_a_fault_is_a_protocol_error() -> None:
    """The parser's words are ours."""
    with pytest.raises(ProtocolError, match="expected a list of objects"):
        Feedback(1000, 60.0, 60.0).judge("f", LABELS, b'{"answers": 3}', 0.0)
