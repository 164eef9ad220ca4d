"""A real gateway whose family has a variant that breaks: others answer for it, and it comes back when it is sound."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from service.settings import Settings
from tests.service.conftest import eventually, samples
from tests.service.families import sign_model, write_family
from tests.service.inprocess import serving
from variants.repository import Repository

RARE = -1e7
"""As x1, it makes the logits of `best` infinite; those of `plain` are sound up to 1e30."""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """`pair` has a variant that breaks on rare rows, `alone` only such a one; the better variant always answers."""
    repository = Repository(tmp_path_factory.mktemp("models"))
    write_family(repository, "pair", {"plain": (sign_model(limit=1e30), 0.8), "best": (sign_model(1), 0.9)})
    write_family(repository, "alone", {"only": (sign_model(), 0.9)})
    with serving(Settings(models=repository.root, policy="most-accurate", slots=1)) as client:
        yield client


def ask(client: httpx.Client, path: str, second: float = 0.0, rows: int = 1) -> httpx.Response:
    data = [1.0, second, 0.0, 0.0] * rows
    body = {"inputs": [{"name": "x", "shape": [rows, 4], "datatype": "FP32", "data": data}]}
    return client.post(f"/v2/models/{path}/infer", json=body)


def metric(client: httpx.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name}{{"))


def test_another_variant_answers_and_the_broken_one_comes_back(client: httpx.Client) -> None:
    """The caller notices nothing but who answered; the variant is probed with the family's own rows, and is sound."""
    before = metric(client, "pareto_retried_requests_total")
    answer = ask(client, "pair", RARE)
    assert (200, "plain", "yes") == (
        answer.status_code,
        answer.headers["x-variant"],
        answer.json()["outputs"][0]["data"][0],
    )
    assert before + 1 == metric(client, "pareto_retried_requests_total")
    assert (
        'pareto_variant_faults_total{model="pair",reason="wrong_output",variant="best"}' in client.get("/metrics").text
    )
    eventually(lambda: ask(client, "pair").headers["x-variant"] == "best", "the probe has answered")


def test_a_request_that_nothing_can_answer_fails_and_leaves_nothing_behind(client: httpx.Client) -> None:
    """The only variant of `alone` is away for as long as a probe takes, however often that happens."""
    failed = samples(client, model="alone", reason="wrong_output")
    answer = ask(client, "alone", RARE)
    assert (500, "executor_error") == (answer.status_code, answer.headers["x-request-dropped-reason"])
    assert failed + 1 == samples(client, model="alone", reason="wrong_output")
    eventually(lambda: ask(client, "alone").status_code == 200, "the probe has answered")
