"""Metadata, repository index, statistics and error bodies."""

from __future__ import annotations

import math

import orjson
import pytest

from router.words import Outcome, Reason
from service.oip.errors import DroppedReason, ProtocolError, Within, body, dropped
from service.oip.metadata import (
    EXTENSIONS,
    IndexEntry,
    model_metadata,
    read_index_request,
    readiness,
    repository_index,
    server_metadata,
)
from service.oip.statistics import Duration, ModelCounters, statistics
from tests.oip.specs import OUTPUTS, Spec


def test_server_metadata_lists_the_extensions() -> None:
    """`GET /v2` says name, version and extensions."""
    said = server_metadata("pareto-gateway", "1.2.3")
    assert said == {"name": "pareto-gateway", "version": "1.2.3", "extensions": list(EXTENSIONS)}


def test_model_metadata_says_what_is_taken_and_given() -> None:
    """Versions are the variants; -1 is a dimension of any length."""
    inputs = [Spec("x", "FP32", (-1, 4))]
    said = model_metadata("m", ["a", "b"], "onnxruntime_onnx", inputs, OUTPUTS, {"revision": "0f1"})
    assert said == {
        "name": "m",
        "versions": ["a", "b"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "scores", "datatype": "FP32", "shape": [-1, 2]},
        ],
        "parameters": {"revision": "0f1"},
    }


def test_readiness_names_the_model() -> None:
    """The version is said where one was asked for."""
    assert readiness("m", True) == {"name": "m", "ready": True}
    assert readiness("m", False, "a") == {"name": "m", "ready": False, "version": "a"}


def test_the_index_lists_versions_with_their_state() -> None:
    """With the `ready` filter, only what serves."""
    entries = [IndexEntry("m", "a", True), IndexEntry("m", "b", False, "not loaded")]
    ready = {"name": "m", "version": "a", "state": "READY", "reason": ""}
    waiting = {"name": "m", "version": "b", "state": "UNAVAILABLE", "reason": "not loaded"}
    assert repository_index(entries) == [ready, waiting]
    assert repository_index(entries, only_ready=True) == [ready]


@pytest.mark.parametrize(
    ("content", "only_ready"), [(b"", False), (b"{}", False), (b'{"ready":true}', True), (b'{"ready":false}', False)]
)
def test_the_index_filter_is_read(content: bytes, only_ready: bool) -> None:
    """No body, or a body without `ready`, lists everything."""
    assert read_index_request(content) is only_ready


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "body: expected JSON or nothing"),
        (b"[]", "body: expected a JSON object"),
        (b'{"ready":1}', "ready: expected true or false, got 1"),
    ],
)
def test_a_malformed_index_filter_is_named(content: bytes, message: str) -> None:
    """The same rules as for every other body."""
    with pytest.raises(ProtocolError, match=message) as caught:
        read_index_request(content)
    assert caught.value.status == 400


def test_statistics_have_the_shape_that_clients_of_triton_read() -> None:
    """Durations are counts with nanoseconds, the last inference is in milliseconds, batches ascend."""
    counters = ModelCounters(
        "m",
        "a",
        inference_count=5,
        execution_count=2,
        last_inference_s=1.5,
        success=Duration(3, 0.25),
        fail=Duration(1, 0.125),
        queue=Duration(3, 0.0625),
        compute=Duration(3, 0.5),
        batches={4: Duration(1, 0.375), 1: Duration(1, 0.125)},
    )
    (model,) = statistics([counters])["model_stats"]
    assert (model["name"], model["version"], model["last_inference"]) == ("m", "a", 1500)
    assert (model["inference_count"], model["execution_count"]) == (5, 2)
    none, untimed = {"count": 0, "ns": 0}, {"count": 3, "ns": 0}
    assert model["inference_stats"] == {
        "success": {"count": 3, "ns": 250_000_000},
        "fail": {"count": 1, "ns": 125_000_000},
        "queue": {"count": 3, "ns": 62_500_000},
        "compute_input": untimed,
        "compute_infer": {"count": 3, "ns": 500_000_000},
        "compute_output": untimed,
        "cache_hit": none,
        "cache_miss": none,
    }
    once = {"count": 1, "ns": 0}
    assert model["batch_stats"] == [
        {
            "batch_size": rows,
            "compute_input": once,
            "compute_infer": {"count": 1, "ns": nanoseconds},
            "compute_output": once,
        }
        for rows, nanoseconds in [(1, 125_000_000), (4, 375_000_000)]
    ]


def test_an_error_body_has_the_one_key_that_clients_read() -> None:
    """`{"error": ...}` and nothing else."""
    assert orjson.loads(body('a "b" ü')) == {"error": 'a "b" ü'}


@pytest.mark.parametrize(
    ("outcome", "reason", "status", "word", "retried"),
    [
        (Outcome.REJECTED_FULL, Reason.BACKLOG_FULL, 503, "backlog_full", True),
        (Outcome.REJECTED_INFEASIBLE, Reason.DEADLINE_INFEASIBLE, 429, "deadline_infeasible", True),
        (Outcome.REJECTED_INFEASIBLE, Reason.NOT_LOADED, 503, "not_loaded", True),
        (Outcome.REJECTED_QUOTA, Reason.QUOTA, 429, "quota", True),
        (Outcome.EXPIRED, Reason.TIMEOUT, 504, "timeout", False),
        (Outcome.CANCELLED, Reason.CLIENT_GONE, 499, "client_gone", False),
        (Outcome.FAILED, Reason.EXECUTOR_ERROR, 500, "executor_error", False),
        (Outcome.FAILED, Reason.SHUTDOWN, 503, "draining", True),
    ],
    ids=str,
)
def test_each_outcome_without_an_answer_has_its_status(
    outcome: Outcome, reason: Reason, status: int, word: str, retried: bool
) -> None:
    """The table of outcomes; 429 and 503 say when to come back."""
    error = dropped(outcome, reason, retry_after_s=2.5)
    assert "{" not in error.message
    assert (error.status, error.reason) == (status, word)
    assert error.retry_after_s == (2.5 if retried else None)
    assert error.reason in set(DroppedReason)


@pytest.mark.parametrize(
    ("within", "quickest_s", "said", "retried"),
    [
        (Within(0.001), 0.0025, "ever meet the SLO of 1 ms: the quickest takes 2.5 ms alone", False),
        (Within(0.00001, "timeout"), 0.0025, "ever meet the timeout of 0.01 ms: the quickest takes 2.5 ms", False),
        (Within(0.0025), 0.0025, "meet the SLO of 2.5 ms now", True),
        (Within(0.001), 0.0, "meet the SLO of 1 ms now", True),
        (Within(math.inf), 0.0025, "meet the SLO now", True),
    ],
)
def test_who_can_never_be_answered_in_time_is_not_told_to_come_back(
    within: Within, quickest_s: float, said: str, retried: bool
) -> None:
    """But what the quickest answer takes; who is over a share is told to come back all the same."""
    error = dropped(Outcome.REJECTED_INFEASIBLE, Reason.DEADLINE_INFEASIBLE, within=within, quickest_s=quickest_s)
    assert said in error.message
    assert retried == (error.retry_after_s is not None)
    other = dropped(Outcome.REJECTED_INFEASIBLE, Reason.OVER_SHARE, within=within, quickest_s=quickest_s)
    assert other.retry_after_s is not None


def test_every_outcome_is_an_answer_or_in_the_table() -> None:
    """A new outcome cannot be forgotten."""
    answered = {Outcome.SERVED, Outcome.SERVED_LATE}
    for outcome in set(Outcome) - answered:
        assert dropped(outcome, Reason.TIMEOUT).status >= 400
    for outcome in answered:
        with pytest.raises(KeyError):
            dropped(outcome, Reason.MOST_ACCURATE)
