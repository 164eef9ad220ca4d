"""Fair shares on a real gateway: who bursts is refused with a reason of its own, and what the metrics say of it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from loadtests.servers import Server, gateway, running
from tests.service.conftest import sign_body
from tests.service.families import sign_model, write_family
from variants.repository import Repository

SLO = {"x-slo-latency-ms": "2000"}


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


async def bursts(url: str, requests: int) -> list[httpx.Response]:
    """Twice so many requests of four rows at once, for either family in turn: the second time demand is known."""
    limits = httpx.Limits(max_connections=requests)
    body = sign_body(*[1.0] * 4)
    async with httpx.AsyncClient(base_url=url, timeout=30.0, limits=limits) as client:
        answers: list[httpx.Response] = []
        for _ in range(2):
            posts = (
                client.post(f"/v2/models/{name}/infer", json=body, headers=SLO)
                for _ in range(requests // 2)
                for name in ("calm", "loud")
            )
            answers += await asyncio.gather(*posts)
        return answers


def test_a_burst_is_told_that_it_is_beyond_its_share(shared: Server) -> None:
    """429 with a reason and Retry-After, counted under that reason; families' attainments are gauges."""
    with httpx.Client(base_url=shared.url, timeout=30.0) as client:
        for _ in range(5):
            assert client.post("/v2/models/calm/infer", json=sign_body(1.0)).status_code == 200
        answers = asyncio.run(bursts(shared.url, 200))
        told = Counter((a.status_code, a.headers.get("x-request-dropped-reason", "")) for a in answers)
        beyond = [a for a in answers if a.headers.get("x-request-dropped-reason") == "over_share"]
        assert beyond, told
        assert {(429, "1")} == {(a.status_code, a.headers["retry-after"]) for a in beyond}
        assert "fair share" in beyond[0].json()["error"]
        assert 'reason="over_share"' in client.get("/metrics").text
        found = gauges(client)
    assert found["pareto_attainment_ratiocalm"] > found["pareto_attainment_ratioloud"]
    assert found["pareto_attainment_least_ratio"] == found["pareto_attainment_ratioloud"]
    assert 0.5 <= found["pareto_attainment_jain_ratio"] <= 1.0


def test_a_floor_of_the_settings_holds_where_a_variant_reaches_it(shared: Server) -> None:
    """`calm` has a variant of 0.8 for a floor of 0.7; nothing of `loud` reaches 0.95, so the best there is answers."""
    with httpx.Client(base_url=shared.url, timeout=30.0) as client:
        for name in ("calm", "loud"):
            answer = client.post(f"/v2/models/{name}/infer", json=sign_body(1.0))
            assert (200, "only") == (answer.status_code, answer.headers.get("x-variant"))
