"""What Prometheus sees: one truth for each request, in names and units that promtool accepts."""

from __future__ import annotations

import re
import shutil
import subprocess

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from loadtests.servers import ROOT
from tests.service.conftest import samples, sign_body

RULE_FILES = ("rules", "slo", "alerts")
"""In deploy/prometheus; each has a file of tests beside it."""


def totals(client: httpx.Client) -> dict[str, float]:
    """The sum of each sample name over all label values."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


def test_each_answer_is_counted_once_everywhere(client: httpx.Client) -> None:
    """Three requests of two rows add three requests, six rows, three latencies and three met SLOs."""
    before = totals(client)
    for _ in range(3):
        client.post("/v2/models/sign/versions/quick/infer", json=sign_body(1.0, -1.0))
    after = totals(client)
    grown = {name: after[name] - before.get(name, 0.0) for name in after}
    expected = {
        "pareto_requests_total": 3.0,
        "pareto_answered_rows_total": 6.0,
        "pareto_request_latency_seconds_count": 3.0,
        "pareto_request_latency_slo_ratio_count": 3.0,
        "pareto_request_queue_seconds_count": 3.0,
        "pareto_request_compute_seconds_count": 3.0,
        "pareto_slo_met_total": 3.0,
        "pareto_slo_judged_total": 3.0,
        "pareto_batch_rows_sum": 6.0,
    }
    assert {name: grown[name] for name in expected} == expected
    assert grown["pareto_served_quality_sum_total"] == pytest.approx(3 * 0.8)
    assert grown["pareto_executor_busy_seconds_total"] > 0.0


def test_refusals_are_counted_by_outcome(client: httpx.Client) -> None:
    """A shed request is a request; a malformed one is a protocol error."""
    shed = samples(client, outcome="rejected_infeasible", model="sign")
    errors = totals(client).get("pareto_protocol_errors_total", 0.0)
    client.post("/v2/models/sign/versions/slow/infer", json=sign_body(1.0), headers={"x-slo-latency-ms": "1"})
    client.post("/v2/models/sign/infer", content=b"{")
    assert samples(client, outcome="rejected_infeasible", model="sign") == shed + 1
    assert totals(client)["pareto_protocol_errors_total"] == errors + 1


def test_every_configured_slo_is_a_bucket_edge(client: httpx.Client) -> None:
    """Attainment can be read off the histogram without interpolation: the default SLO of `sign` is 10 s."""
    client.post("/v2/models/sign/infer", json=sign_body(1.0))
    text = client.get("/metrics").text
    assert 'pareto_request_latency_seconds_bucket{le="10.0",model="sign"' in text


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian package prometheus) is not installed")
def test_promtool_accepts_the_exposition(client: httpx.Client) -> None:
    """Base units, suffixes and help texts are as Prometheus wants them."""
    client.post("/v2/models/sign/infer", json=sign_body(1.0))
    text = client.get("/metrics").content
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian package prometheus) is not installed")
@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yml"), *(("test", "rules", f"{name}_test.yml") for name in RULE_FILES)],
)
def test_the_shipped_prometheus_files_hold(arguments: tuple[str, ...]) -> None:
    """The scrape configuration is sound, and the recorded series are what their comments say."""
    *words, file = arguments
    checked = subprocess.run(
        ["promtool", *words, ROOT / "deploy" / "prometheus" / file], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_has_a_paragraph_and_names_it() -> None:
    """Its description ends with a link into docs/alerts.md, where a heading of its name stands; and no others do."""
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    found: list[str] = []
    for name in RULE_FILES:
        text = (ROOT / "deploy" / "prometheus" / f"{name}.yml").read_text(encoding="utf-8")
        for alert in text.split("- alert: ")[1:]:
            found.append(alert.split()[0])
            assert f"docs/alerts.md#{found[-1].lower()}" in alert, found[-1]
            assert "summary: " in alert, found[-1]
    assert sorted(set(found)) == sorted(headings)


def test_refused_requests_count_against_the_slo(client: httpx.Client) -> None:
    """Attainment is met / judged, and a shed request is judged."""
    before = totals(client)
    client.post("/v2/models/sign/versions/slow/infer", json=sign_body(1.0), headers={"x-slo-latency-ms": "1"})
    after = totals(client)
    assert after["pareto_slo_judged_total"] - before.get("pareto_slo_judged_total", 0.0) == 1.0
    assert after["pareto_slo_met_total"] == before.get("pareto_slo_met_total", 0.0)


def test_the_native_api_counts_what_it_refuses(client: httpx.Client) -> None:
    """A malformed call is one protocol error; a shed one is a request with an outcome."""
    before = totals(client)
    client.post("/classify", json={"model": "nobody", "rows": [[0.0]]})
    shed = {"model": "sign", "rows": [[1.0, 0.0, 0.0, 0.0]], "variant": "slow", "slo_ms": 1}
    client.post("/classify", json=shed)
    after = totals(client)
    assert after["pareto_protocol_errors_total"] - before.get("pareto_protocol_errors_total", 0.0) == 1.0
    assert after["pareto_requests_total"] - before.get("pareto_requests_total", 0.0) == 1.0
