"""Tenants over HTTP: what one may ask for, when it may come back, and which variant it keeps."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.settings import Settings
from tests.service.conftest import samples, sign_body
from tests.service.families import sign_model, write_family
from tests.service.inprocess import serving
from variants.repository import Repository

TENANT = "x-gateway-inference-fairness-id"
INFER = "/v2/models/sign/infer"
TENANTS = {
    "thrifty": {"rate": 0.05, "burst": 3},
    "narrow": {"concurrency": 1},
    "free": {"priority": 1},
    "loyal": {"sticky_s": 1000.0},
    "default": {"rate": 0.02, "burst": 2},
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the family `sign`, whose slow variant takes a good part of a second."""
    root = tmp_path_factory.mktemp("models")
    write_family(Repository(root), "sign", {"quick": (sign_model(), 0.8), "slow": (sign_model(100), 0.9)})
    return root


@pytest.fixture(scope="module")
def client(repository: Path) -> Iterator[httpx.Client]:
    """A gateway with quotas; one slot."""
    # Not a cascade: the quick variant is sure of these rows.
    given = {"models": repository, "slots": 1, "tenants": TENANTS, "policy": "slack-fraction"}
    settings = Settings.model_validate(given)
    with serving(settings) as http:
        yield http


def ask(client: httpx.Client, tenant: str, rows: int = 1) -> httpx.Response:
    return client.post("/v2/models/sign/versions/quick/infer", json=sign_body(*[1.0] * rows), headers={TENANT: tenant})


def test_who_asks_for_too_much_is_told_when_to_come_back(client: httpx.Client) -> None:
    """Three rows at once, then one in twenty seconds: 429 with the reason and the seconds, rounded up."""
    assert ask(client, "thrifty", rows=2).status_code == 200
    refused = ask(client, "thrifty", rows=2)
    assert (refused.status_code, refused.headers["x-request-dropped-reason"]) == (429, "quota")
    assert 15 <= int(refused.headers["retry-after"]) <= 20
    assert ask(client, "thrifty").status_code == 200
    counted = samples(client, tenant="thrifty", outcome="rejected_quota", reason="quota")
    assert (counted, samples(client, tenant="thrifty", outcome="served")) == (1, 2)


def test_who_has_nothing_left_is_refused_unread(client: httpx.Client) -> None:
    """A body that is no JSON is told 429, not 400, once the tenant has used up its rows; others are not in the way."""
    assert ask(client, "stranger-1", rows=2).status_code == 200
    broken = client.post(INFER, content=b"{", headers={TENANT: "stranger-1"})
    assert (broken.status_code, broken.headers["x-request-dropped-reason"]) == (429, "quota")
    assert 40 <= int(broken.headers["retry-after"]) <= 50
    assert client.post(INFER, content=b"{", headers={TENANT: "stranger-2"}).status_code == 400
    assert ask(client, "stranger-2").status_code == 200
    assert all(ask(client, "free").status_code == 200 for _ in range(9))


def test_strangers_share_a_label(client: httpx.Client) -> None:
    """Each has its own bucket, but all are counted as `other`, and who names nobody as `default-flow`."""
    before = samples(client, tenant="other")
    for number in range(20):
        assert ask(client, f"passer-by-{number}").status_code == 200
    client.post(INFER, json=sign_body(1.0))
    assert samples(client, tenant="other") == before + 20
    labels = set(re.findall(r'tenant="([^"]*)"', client.get("/metrics").text))
    assert labels <= {*TENANTS, "other", "default-flow"} - {"default"}


def variant_of(client: httpx.Client, slo_ms: int, session: str) -> tuple[str, str]:
    """Who answers a caller with that `x-session-id`, and why; late, where nothing else is to be had."""
    headers = {TENANT: "loyal", "x-session-id": session, "x-slo-latency-ms": str(slo_ms), "x-slo-when-late": "serve"}
    response = client.post(INFER, json=sign_body(1.0), headers=headers).raise_for_status()
    assert response.json()["parameters"]["route_reason"] == response.headers["x-route-reason"]
    return response.headers["x-variant"], response.headers["x-route-reason"]


def test_a_session_keeps_its_variant_where_deadlines_allow(client: httpx.Client) -> None:
    """Who began in a hurry stays with the quick variant, others get the best one, and a quick one when in a hurry."""
    assert variant_of(client, 8, "hasty")[0] == "quick"
    assert variant_of(client, 20_000, "hasty") == ("quick", "sticky")
    assert variant_of(client, 20_000, "calm")[0] == "slow"
    assert variant_of(client, 20_000, "calm") == ("slow", "sticky")
    hurried = variant_of(client, 8, "calm")
    assert (hurried[0], hurried[1] == "sticky") == ("quick", False)
    assert variant_of(client, 20_000, "calm") == ("slow", "sticky")


def test_a_tenants_priority_is_that_of_its_requests(client: httpx.Client) -> None:
    """Beside a request of many rows one waits that came before; the last one, of a tenant with priority 1, is first."""

    async def race() -> list[str]:
        ended: list[str] = []

        async def one(many: httpx.AsyncClient, tenant: str, rows: int) -> None:
            body = sign_body(*[1.0] * rows)
            await many.post("/v2/models/sign/versions/slow/infer", json=body, headers={TENANT: tenant})
            ended.append(tenant)

        async with httpx.AsyncClient(base_url=client.base_url, timeout=30.0) as many:
            tasks = []
            for waiting, (tenant, rows) in enumerate((("large", 60), ("patient", 1), ("free", 1))):
                tasks.append(asyncio.create_task(one(many, tenant, rows)))
                while await unfinished(many) <= waiting and not ended:
                    pass
            await asyncio.gather(*tasks)
        return ended

    assert asyncio.run(race()) == ["free", "large", "patient"]


async def unfinished(many: httpx.AsyncClient) -> float:
    text = (await many.get("/metrics")).text
    return float(re.findall(r"^pareto_unfinished_requests (.*)$", text, flags=re.MULTILINE)[0])


def test_one_request_at_a_time(client: httpx.Client) -> None:
    """Of several that come while one runs all but that one are refused; when it is answered the next is taken in."""

    async def burst() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=client.base_url, timeout=30.0) as many:
            path = "/v2/models/sign/versions/slow/infer"
            asks = [many.post(path, json=sign_body(1.0), headers={TENANT: "narrow"}) for _ in range(5)]
            return await asyncio.gather(*asks)

    answers = asyncio.run(burst())
    statuses = sorted(answer.status_code for answer in answers)
    assert 200 in statuses
    assert statuses.count(200) + statuses.count(429) == 5
    assert statuses.count(429) >= 3, "the first one takes longer than the others need to arrive"
    assert all(int(a.headers["retry-after"]) >= 1 for a in answers if a.status_code == 429)
    assert ask(client, "narrow").status_code == 200
