"""Cascades and stages over HTTP: unsure rows are answered again, and nobody loses an answer by it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.gateway import Gateway
from service.scoped_settings import Stages
from service.settings import Settings
from tests.scripted import TwoSteps
from tests.service.conftest import eventually, sound_again
from tests.service.families import write_chain
from tests.service.inprocess import serving
from variants.fingerprint import machine_fingerprint
from variants.profiles import ExecutorCell, Executors, FamilyProfile, VariantTable, load_profile, save_profile
from variants.repository import Repository

SURE, UNSURE = (3.0, 0.0, 0.0, 0.0), (0.05, -3.0, 0.0, 0.0)
"""Rows that both exits call `yes`, and that the first one calls `yes` by a hair and the second one `no`."""
BREAKS = (0.05, -1e7, 0.0, 0.0)
"""A row on which the second exit fails."""
DAWDLES = (0.05, -3.0, 0.0, 300.0)
"""A row on which the second exit takes a second or so; on others it takes a fraction of a millisecond."""

INFER = "/v2/models/chain/infer"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the family `chain`, profiled as if each of its models took a millisecond."""
    repository = Repository(tmp_path_factory.mktemp("models"))
    write_chain(repository, "chain")
    fingerprint = machine_fingerprint(1)
    millisecond = {
        name: VariantTable(
            batches=(1, 4),
            median_s=((seconds, 2 * seconds),),
            tail_s=((seconds, 2 * seconds),),
            samples=((1, 1),),
            load_s=0.1,
            memory_bytes=1,
        )
        for name, seconds in (("small", 1e-3), ("large", 2e-3), ("first", 1e-3), ("second", 1e-3))
    }
    profile = FamilyProfile(
        family="chain",
        revision="1",
        fingerprint=fingerprint.digest,
        machine=fingerprint.description,
        taken=datetime(2026, 1, 1, tzinfo=UTC),
        mode="quick",
        threads=1,
        variants={name: millisecond[name] for name in ("small", "large")},
        stages={name: millisecond[name] for name in ("first", "second")},
    )
    save_profile(repository.open("chain"), profile)
    return repository.root


def gateway(models: Path, stages: Stages = "auto") -> Settings:
    """No batch runs on the event loop: the profile is not to be believed."""
    return Settings(models=models, slots=1, stages=stages, inline_below_s=0.0)


@pytest.fixture(scope="module", params=["auto", "off"])
def client(models: Path, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """A gateway with chains as stages, and one with whole graphs."""
    with serving(gateway(models, request.param), TwoSteps()) as http:
        yield http


def body(*rows: tuple[float, ...]) -> dict[str, object]:
    data = [value for row in rows for value in row]
    return {"inputs": [{"name": "x", "shape": [len(rows), 4], "datatype": "FP32", "data": data}]}


def decision(response: httpx.Response) -> tuple[str, ...]:
    """Path, escalation and label of an answer to one row, once header and body are seen to agree."""
    said, headers = response.json()["parameters"], response.headers
    assert (said["route_path"], said["escalation"]) == (headers["x-route-path"], headers["x-escalation"])
    assert (said["variant"], said["route_reason"]) == (headers["x-variant"], headers["x-route-reason"])
    assert f"{said['first_confidence']:.4f}" == headers["x-first-confidence"]
    return headers["x-route-path"], headers["x-escalation"], response.json()["outputs"][0]["data"][0]


def counted(client: httpx.Client, name: str, **labels: str) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_an_unsure_row_is_answered_again_and_a_sure_one_is_not(client: httpx.Client) -> None:
    """The better answer replaces the first one; the path, the reason and the first confidence say how it came."""
    assert decision(client.post(INFER, json=body(SURE))) == ("small", "confident", "yes")
    again = client.post(INFER, json=body(UNSURE))
    assert decision(again) == ("small,large", "escalated", "no")
    assert (again.headers["x-variant"], again.headers["x-route-reason"]) == ("large", "escalated")
    assert again.headers["x-first-confidence"] == f"{1 / (1 + np.exp(-2 * 1.7 * 0.05)):.4f}"


def test_rows_of_one_request_go_their_own_ways(client: httpx.Client) -> None:
    """Of six rows the unsure ones are answered by the better variant, each at its own place."""
    response = client.post(INFER, json=body(SURE, UNSURE, SURE, UNSURE, UNSURE, SURE))
    parameters = response.json()["parameters"]
    assert response.json()["outputs"][0]["data"] == ["yes", "no", "yes", "no", "no", "yes"]
    assert (parameters["variant"], parameters["route_path"]) == ("mixed", "small")
    assert parameters["row_variants"] == "small,large,small,large,large,small"


def test_a_better_variant_that_fails_costs_nobody_the_answer(client: httpx.Client) -> None:
    """The first answer goes out; who pins the better variant learns that it failed."""
    assert decision(client.post(INFER, json=body(BREAKS))) == ("small", "failed", "yes")
    sound_again(client, "chain", "large")
    pinned = client.post("/v2/models/chain/versions/large/infer", json=body(BREAKS))
    assert (pinned.status_code, pinned.headers["x-request-dropped-reason"]) == (500, "executor_error")
    sound_again(client, "chain", "large")


def test_a_better_variant_that_is_stuck_costs_nobody_the_answer(client: httpx.Client) -> None:
    """At the deadline the first answer goes out; the batch that was to better it ends later, for nobody."""
    before = counted(client, "pareto_escalated_rows_total")
    headers = {"x-slo-latency-ms": "200", "x-slo-when-late": "serve"}
    assert decision(client.post(INFER, json=body(DAWDLES), headers=headers)) == ("small", "no_time", "yes")
    assert counted(client, "pareto_slots_busy") == 1
    eventually(lambda: counted(client, "pareto_escalated_rows_total") == before + 1, "the stuck batch ends")
    assert decision(client.post(INFER, json=body(UNSURE))) == ("small,large", "escalated", "no")


def test_nothing_is_left_to_decide_where_the_caller_has_decided(client: httpx.Client) -> None:
    """Pinned, with a floor that only the best one reaches, or without a deadline: one answer, no word of confidence."""
    floor, batch = {"x-slo-min-accuracy": "0.95"}, {"x-gateway-inference-objective": "batch"}
    responses = {
        "small": client.post("/v2/models/chain/versions/small/infer", json=body(UNSURE)),
        "large": client.post(INFER, json=body(UNSURE), headers=floor),
    }
    for variant, response in responses.items():
        said = response.json()["parameters"]
        assert (said["route_path"], said["escalation"], "first_confidence" in said) == (variant, "none", False)
        assert "x-first-confidence" not in response.headers
    assert client.post(INFER, json=body(UNSURE), headers=batch).headers["x-escalation"] == "none"


def test_escalations_are_counted(client: httpx.Client) -> None:
    """Rows by the pair of variants, requests by the variant that answered first and the word for what followed."""
    labels = {"model": "chain", "variant": "small"}
    words = ("confident", "escalated", "failed", "none")
    rows = counted(client, "pareto_escalated_rows_total", from_variant="small", to_variant="large")
    before = [counted(client, "pareto_first_answers_total", **labels, escalation=word) for word in words]
    sums = counted(client, "pareto_first_answer_confidence_sum_total", **labels, escalation="escalated")
    for row in (SURE, SURE, UNSURE, BREAKS):
        client.post(INFER, json=body(row))
    sound_again(client, "chain", "large")
    client.post("/v2/models/chain/versions/small/infer", json=body(UNSURE))
    after = [counted(client, "pareto_first_answers_total", **labels, escalation=word) for word in words]
    assert [new - old for new, old in zip(after, before, strict=True)] == [2, 1, 1, 1]
    assert counted(client, "pareto_escalated_rows_total", from_variant="small", to_variant="large") == rows + 1
    added = counted(client, "pareto_first_answer_confidence_sum_total", **labels, escalation="escalated") - sums
    assert added == pytest.approx(1 / (1 + np.exp(-2 * 1.7 * 0.05)), abs=1e-4)


@pytest.mark.parametrize(("given", "said"), [({}, True), ({"threads_per_slot": 1}, False)])
def test_measured_executors_are_told_where_settings_leave_them_open(
    models: Path, caplog: pytest.LogCaptureFixture, given: dict[str, int], said: bool
) -> None:
    """One line in the log says what was measured best; nothing is said to who has decided."""
    folder = Repository(models).open("chain")
    profile = load_profile(folder)
    assert profile is not None
    cell = ExecutorCell(variant="small", batch=1, slots_rows_s=2.0, threads_rows_s=1.0, ratios=(2.0,))
    save_profile(folder, profile.model_copy(update={"executors": Executors(cores=2, cells=(cell,))}))
    replica = Gateway(Settings(models=models, **given))  # type: ignore[arg-type]  # keywords of one type
    with caplog.at_level(logging.INFO, "pareto.gateway"):
        asyncio.run(replica.start())
    replica.abandon()
    assert ("family chain: measured best here are slots = 2 and threads_per_slot = 1" in caplog.text) is said


def test_stages_answer_bit_for_bit_as_whole_graphs(models: Path) -> None:
    """Forty rows pinned to each variant and cascaded: the same bytes, whichever way the variants are loaded."""
    rows = np.random.default_rng(9).standard_normal((40, 4)).astype(np.float32)
    rows[:, 3] = 0.0
    asked = {**body(*map(tuple, rows.tolist())), "parameters": {"binary_data_output": True}}
    urls = ("/v2/models/chain/versions/small/infer", "/v2/models/chain/versions/large/infer", INFER)
    answers: list[list[bytes]] = []
    for stages in ("on", "off"):
        with serving(gateway(models, stages), TwoSteps()) as client:
            responses = [client.post(url, json=asked) for url in urls]
            assert [response.status_code for response in responses] == [200] * 3
            lengths = [int(response.headers["inference-header-content-length"]) for response in responses]
            answers.append([response.content[n:] for response, n in zip(responses, lengths, strict=True)])
    assert answers[0] == answers[1]
