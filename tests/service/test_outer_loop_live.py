"""A real Prometheus scrapes a real gateway, which reads it, over sockets; windows and cadence are seconds here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from loadtests.prometheus_server import NOT_INSTALLED, is_installed, prometheus
from loadtests.servers import free_port
from service import outer_loop
from service.settings import Settings
from tests.service.conftest import eventually, sign_body
from tests.service.families import sign_model, write_family
from tests.service.inprocess import serving
from tests.service.test_page import events
from variants.repository import Repository

HOPELESS = {"x-slo-latency-ms": "0.01"}


def metric(client: httpx.Client, name: str, **labels: str) -> float | None:
    """The value of one series, `None` where it is not exposed."""
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    return None


def caution(client: httpx.Client) -> float | None:
    return metric(client, "pareto_outer_loop_caution_ratio", model="sign")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A gateway of one family that reads a Prometheus at a free port; advice is old after two seconds."""
    models = tmp_path / "models"
    write_family(Repository(models), "sign", {"quick": (sign_model(), 0.8), "slow": (sign_model(2), 0.9)})
    monkeypatch.setattr(outer_loop, "LEAST_AGE_S", 2.0)
    return Settings.model_validate(
        {
            "models": models,
            "slots": 1,
            "prometheus_url": f"http://127.0.0.1:{free_port()}",
            "prometheus_every_s": 0.5,
            "prometheus_short_s": 4,
            "prometheus_long_s": 8,
            "prometheus_match": 'job="pareto-gateway"',
        }
    )


@pytest.fixture
def away(settings: Settings) -> Iterator[httpx.Client]:
    """That gateway, while nobody listens at the port."""
    with serving(settings) as client:
        yield client


def test_without_a_prometheus_requests_are_answered_and_metrics_say_so(away: httpx.Client) -> None:
    """Attempts fail and are counted, nothing is in force, the answer is as ever."""
    eventually(
        lambda: (metric(away, "pareto_outer_loop_readings_total", result="unreachable") or 0.0) > 0.0, "it was tried"
    )
    assert 200 == away.post("/v2/models/sign/infer", json=sign_body(1.0)).status_code
    assert (0.0, 1.0) == (metric(away, "pareto_outer_loop_fresh"), caution(away))


def test_gateways_without_the_setting_have_only_their_targets(client: httpx.Client) -> None:
    """Alerts need those; nothing else of the outer loop is exposed."""
    assert 0.99 == metric(client, "pareto_slo_target_ratio", model="sign")
    assert None is metric(client, "pareto_outer_loop_fresh")


@pytest.mark.skipif(not is_installed(), reason=NOT_INSTALLED)
def test_a_burning_budget_makes_the_gateway_careful_until_the_server_is_gone(settings: Settings) -> None:
    """Refused requests are scraped, read back, and answered with caution; when the server ends, so does the caution."""
    with prometheus() as scraper:
        found = settings.model_copy(update={"prometheus_url": scraper.server.url})
        with serving(found) as client:
            scraper.scrape(f"{client.base_url.host}:{client.base_url.port}")

            def careful() -> bool:
                for headers in (HOPELESS, {}, {}):
                    client.post("/v2/models/sign/versions/slow/infer", json=sign_body(1.0), headers=headers)
                return (caution(client) or 0.0) > 1.0

            eventually(careful, "caution is in force")
            assert 1.0 == metric(client, "pareto_outer_loop_fresh")
            assert (metric(client, "pareto_outer_loop_burn_ratio", model="sign", window="short") or 0.0) > 1.0
            stream = events(client, "?family=sign")
            assert next(said["caution"] for kind, said in stream if kind == "tick") > 1.0
            stream.close()  # type: ignore[attr-defined]  # a generator is an iterator with more
            scraper.server.stop()
            eventually(lambda: metric(client, "pareto_outer_loop_fresh") == 0.0, "the advice is forgotten")
            assert 1.0 == caution(client)
            assert 200 == client.post("/v2/models/sign/infer", json=sign_body(1.0)).status_code
