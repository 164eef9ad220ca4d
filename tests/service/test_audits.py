"""Audits over HTTP: agreement is what the models' answers say, drift is found, and no audit counts as a request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from router.agreement import Rules
from router.policies import policy_named
from router.request import Request
from router.sampling import fraction
from router.view import Policy
from service.audits import Audits
from service.live_quality import LiveQuality
from service.settings import Settings
from service.spare_time import MOST_RUNNING
from service.work import Answer
from tests.queued import FAMILY
from tests.scripted import TwoSteps
from tests.service.conftest import eventually
from tests.service.families import LARGE, SMALL, write_chain
from tests.service.inprocess import serving
from tests.service.test_feedback import answered
from variants.preparation import Row
from variants.repository import Repository

INFER = "/v2/models/chain/infer"
OF_FAMILY = Request(99, "f", (0,), 0.0, revision=FAMILY.revision)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the family `chain`, whose variants agree on about 85 rows of 100."""
    repository = Repository(tmp_path_factory.mktemp("models"))
    write_chain(repository, "chain")
    return repository.root


def settings(models: Path, share: float = 1.0) -> Settings:
    return Settings(models=models, slots=1, audit_share=share, drift_s=0.0, tenants={"known": {}})


@pytest.fixture
def client(models: Path) -> Iterator[httpx.Client]:
    """A gateway in which `small` answers all, and `large` afterwards."""
    with serving(settings(models), policy_named("fixed:small")) as http:
        yield http


def metric(client: httpx.Client, name: str, **labels: str) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def rows_of(count: int, seed: int = 5) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)
    rows[:, 3] = 0.0
    return rows


def ask(client: httpx.Client, rows: NDArray[np.float32], tenant: str = "known", prefix: str = "r") -> None:
    """One request for each row."""
    for number, row in enumerate(rows.tolist()):
        body = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": row}]}
        headers = {"x-gateway-inference-fairness-id": tenant, "x-request-id": f"{prefix}-{number}"}
        client.post(INFER, json=body, headers=headers).raise_for_status()


def agree(rows: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether both variants give a row the same label."""
    same: NDArray[np.bool_] = (rows @ np.array(SMALL) > 0) == (rows @ np.array(LARGE) > 0)
    return same


def test_agreement_is_what_the_models_say_and_no_user_sees_it(client: httpx.Client) -> None:
    """Of 120 answers as many agree as computed by hand; the requests and statistics are those of the callers alone."""
    rows = rows_of(120)
    ask(client, rows)
    eventually(lambda: metric(client, "pareto_audits_total", outcome="compared") == 120, "all are compared")
    share = metric(client, "pareto_agreement_ratio", model="chain", variant="small")
    assert share == pytest.approx(agree(rows).mean(), abs=1e-3)
    assert metric(client, "pareto_served_agreement_ratio", tenant="known") == pytest.approx(share)
    low, high = (metric(client, f"pareto_agreement_{end}_ratio", variant="small") for end in ("low", "high"))
    assert low < metric(client, "pareto_agreement_expected_ratio", variant="small") < high
    assert metric(client, "pareto_agreement_drift", variant="small") == 0.0
    assert metric(client, "pareto_requests_total") == metric(client, "pareto_slo_judged_total") == 120
    with client.stream("GET", "/events?family=chain") as page:
        welcome = next(line for line in page.iter_lines() if line.startswith("data: "))
    decisions = json.loads(welcome.removeprefix("data: "))["decisions"]
    assert {"small"} == {decision["variant"] for decision in decisions}
    stats = client.get("/v2/models/chain/versions/large/stats").json()["model_stats"][0]
    assert stats["inference_stats"]["success"]["count"] == 0


def test_inputs_that_are_not_what_they_were_drift(client: httpx.Client) -> None:
    """Rows near the border of one variant alone: it agrees on hardly more than half, and the gauge says so."""
    rows = rows_of(150, seed=6)
    rows[:, 0] *= 0.1
    ask(client, rows, tenant="stranger")
    eventually(lambda: metric(client, "pareto_audits_total", outcome="compared") == 150, "all are compared")
    assert metric(client, "pareto_agreement_ratio", variant="small") == pytest.approx(agree(rows).mean(), abs=1e-3)
    assert metric(client, "pareto_agreement_drift", variant="small") == 1.0
    assert metric(client, "pareto_served_agreement_samples", tenant="other") == pytest.approx(150, abs=5)


def test_which_answers_are_compared_depends_on_ids_alone(models: Path) -> None:
    """A share of 0.3 compares those requests, and no others, whose ids fall below it."""
    drawn = sum(fraction(f"r-{number}", "audit") < 0.3 for number in range(60))
    with serving(settings(models, 0.3), policy_named("fixed:small")) as client:
        ask(client, rows_of(60))
        eventually(lambda: metric(client, "pareto_audits_total") == drawn, "those are compared")
        ask(client, rows_of(1), prefix="last")
        assert metric(client, "pareto_audits_total") in (drawn, drawn + (fraction("last-0", "audit") < 0.3))
    assert 5 < drawn < 35


@pytest.mark.parametrize("policy", [TwoSteps(), policy_named("fixed:large")], ids=["a cascade", "the best one"])
def test_the_first_answer_is_compared_though_a_better_one_went_out(models: Path, policy: Policy) -> None:
    """What a cascade asks again counts for the variant that was unsure; the tenant was served well either way."""
    rows = rows_of(80)
    with serving(settings(models), policy) as client:
        ask(client, rows)
        eventually(lambda: metric(client, "pareto_audits_total", outcome="compared") == 80, "all are compared")
        served = metric(client, "pareto_served_agreement_ratio", tenant="known")
        if isinstance(policy, TwoSteps):
            share = metric(client, "pareto_agreement_ratio", variant="small")
            assert share == pytest.approx(agree(rows).mean(), abs=1e-3)
            assert served > share
        else:
            assert metric(client, "pareto_agreement_samples") == 0.0
            assert served == pytest.approx(1.0)


def test_a_draining_replica_gives_audits_up() -> None:
    """Only so many wait at a time; what waits is cancelled, and nothing new is taken up."""
    submitted: list[Request] = []
    cancelled: list[int] = []

    async def scenario() -> LiveQuality:
        quality = LiveQuality(Rules())

        def submit(request: Request, rows: Sequence[Row]) -> asyncio.Future[Answer]:
            submitted.append(request)
            return asyncio.get_running_loop().create_future()

        numbers = iter(range(100, 1000))
        audits = Audits(1.0, quality, {"f": FAMILY}.get, submit, cancelled.append, lambda: next(numbers), str)
        for number in range(MOST_RUNNING + 3):
            audits.consider(OF_FAMILY._replace(id=number), str(number), np.zeros(4), answered(1))
        await asyncio.sleep(0)
        audits.stop()
        audits.consider(OF_FAMILY, "99", np.zeros(4), answered(1))
        await asyncio.sleep(0)
        return quality

    quality = asyncio.run(scenario())
    assert quality.skipped == {"f": 3}
    assert [request.id for request in submitted] == cancelled == list(range(100, 100 + MOST_RUNNING))
    assert all(request.audit and request.pinned == "large" for request in submitted)


def test_what_a_revision_that_is_gone_answered_is_not_audited() -> None:
    """Another one has its place by the time the audit would be asked: nothing is asked, and nothing compared."""
    submitted: list[Request] = []

    async def scenario() -> LiveQuality:
        quality = LiveQuality(Rules())

        def submit(request: Request, rows: Sequence[Row]) -> asyncio.Future[Answer]:
            submitted.append(request)
            return asyncio.get_running_loop().create_future()

        audits = Audits(1.0, quality, {"f": FAMILY}.get, submit, lambda _: None, lambda: 1, str)
        for revision in ("gone", FAMILY.revision):
            audits.consider(OF_FAMILY._replace(revision=revision), revision, np.zeros(4), answered(1))
        await asyncio.sleep(0)
        return quality

    quality = asyncio.run(scenario())
    assert [FAMILY.revision] == [request.revision for request in submitted]
    assert ({}, {}) == (quality.compared, quality.skipped)
