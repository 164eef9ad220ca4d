"""Fair shares on a real gateway: floors and evenness of families, and what is told to who is beyond a share."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from loadtests.servers import Server, gateway, running
from router.words import Outcome, Reason
from service.oip.errors import dropped
from tests.service.conftest import sign_body
from tests.service.families import sign_model, write_family
from variants.repository import Repository

SLO = {"x-slo-latency-ms": "20000"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two families of one slow variant on one slot; calm answers have a floor that the family satisfies."""
    root = tmp_path_factory.mktemp("models")
    for name in ("calm", "loud"):
        write_family(Repository(root), name, {"only": (sign_model(30), 0.8)})
    settings = {
        "PARETO_SLOTS": "1",
        "PARETO_CONFIG": "",
        "PARETO_FAMILIES": json.dumps({"calm": {"min_accuracy": 0.7, "weight": 2.0}, "loud": {"min_accuracy": 0.95}}),
    }
    with running(gateway(root, settings)) as server:
        yield server


def gauges(client: httpx.Client) -> dict[str, float]:
    """Values of the series without labels, and of those with no other label than a family."""
    found = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            if set(sample.labels) <= {"model"}:
                found[sample.name + sample.labels.get("model", "")] = sample.value
    return found


def test_who_is_beyond_a_share_is_told_so() -> None:
    """429 with a reason of its own, and when to come back."""
    error = dropped(Outcome.REJECTED_INFEASIBLE, Reason.OVER_SHARE)
    assert (429, "over_share", 1.0) == (error.status, error.reason, error.retry_after_s)
    assert "fair share" in error.message


def test_families_attainments_are_gauges(shared: Server) -> None:
    """One family is answered, the other is asked for what it cannot do in time: the least of both, and Jain's index."""
    with httpx.Client(base_url=shared.url, timeout=30.0) as client:
        assert client.post("/v2/models/calm/infer", json=sign_body(1.0), headers=SLO).status_code == 200
        hopeless = client.post("/v2/models/loud/infer", json=sign_body(1.0), headers={"x-slo-latency-ms": "0.001"})
        assert hopeless.status_code == 429
        found = gauges(client)
    assert found["pareto_attainment_ratiocalm"] > found["pareto_attainment_ratioloud"]
    assert found["pareto_attainment_least_ratio"] == found["pareto_attainment_ratioloud"]
    assert 0.5 <= found["pareto_attainment_jain_ratio"] < 1.0


def test_a_floor_of_the_settings_holds_where_a_variant_reaches_it(shared: Server) -> None:
    """`calm` has a variant of 0.8 for a floor of 0.7; nothing of `loud` reaches 0.95, so the best there is answers."""
    with httpx.Client(base_url=shared.url, timeout=30.0) as client:
        for name in ("calm", "loud"):
            answer = client.post(f"/v2/models/{name}/infer", json=sign_body(1.0))
            assert (200, "only") == (answer.status_code, answer.headers.get("x-variant"))
