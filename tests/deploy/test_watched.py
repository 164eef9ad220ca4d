"""Every query of dashboards and autoscalers has a number, and every probe an answer, where a gateway is under load."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
import yaml

from deploy.grafana.generate import dashboards
from loadtests.servers import Server, free_port, gateway, running
from tests.deploy.manifests import FOLDER, container, one, render, runtime
from tests.deploy.prometheus import Prometheus, prometheus
from tests.service.conftest import eventually
from tests.service.families import sign_model, write_chain, write_family
from variants.repository import Repository

CHOSEN = {"model": "chain", "tenant": "known", "__rate_interval": "2m"}
"""What the variables of dashboards stand for in these tests."""
SURE, UNSURE, BREAKS = (3.0, 0.0, 0.0, 0.0), (0.05, -3.0, 0.0, 0.0), (0.05, -1e7, 0.0, 0.0)
TENANT = "x-gateway-inference-fairness-id"


@dataclass(frozen=True, slots=True)
class Watched:
    """A gateway, and the Prometheus that scrapes it."""

    gateway: Server
    prometheus: Prometheus


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A Prometheus that scrapes a gateway from before its first request on, while all kinds of requests come."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus (Debian package prometheus) is not installed")
    repository = Repository(tmp_path_factory.mktemp("models"))
    write_chain(repository, "chain")
    write_family(repository, "sign", {"quick": (sign_model(), 0.8)})
    port = free_port()
    tenants = {"known": {}, "limited": {"rate": 0.001, "burst": 1}}
    environment = {
        "PARETO_SLOTS": "1",
        "PARETO_AUDIT_SHARE": "1",
        "PARETO_MEMORY_BUDGET": "4GiB",
        "PARETO_TENANTS": json.dumps(tenants),
        "PARETO_TRACES_ENDPOINT": "http://127.0.0.1:9",
        "PARETO_TRACES_SHARE": "1",
        "PARETO_PROMETHEUS_URL": f"http://127.0.0.1:{port}",
        "PARETO_PROMETHEUS_EVERY_S": "0.5",
        "PARETO_ADMIN": "true",
    }
    stop = threading.Event()
    with running(gateway(repository.root, environment)) as server:
        write_chain(repository, "chain", revision="2")
        shadow = {"parameters": {"revision": "2", "canary_shadow": True}}
        httpx.post(f"{server.url}/v2/repository/models/chain/load", json=shadow, timeout=30.0).raise_for_status()
        target = server.url.removeprefix("http://")
        with prometheus(tmp_path_factory.mktemp("prometheus"), target, port) as watching:
            eventually(lambda: bool(watching.values("pareto_ready")), "it has been scraped")
            traffic = threading.Thread(target=_traffic, args=(server.url, stop))
            traffic.start()
            try:
                yield Watched(server, watching)
            finally:
                stop.set()
                traffic.join()


def _traffic(url: str, stop: threading.Event) -> None:
    """Answers, escalations, feedback, and everything that can go wrong, again and again."""
    with httpx.Client(base_url=f"{url}/v2/models", timeout=30.0) as client:
        number = 0
        while not stop.wait(0.05):
            number += 1
            known = {TENANT: "known", "x-request-id": f"r-{number}"}
            _ask(client, "chain", UNSURE if number % 2 else SURE, known)
            _ask(client, "sign", SURE, {TENANT: "limited"})
            _ask(client, "sign", SURE, {"x-slo-latency-ms": "0.001"})
            _ask(client, "chain/versions/large", BREAKS, {})
            client.post("/sign/infer", content=b"{")
            client.post("/chain/feedback", json={"answers": [{"id": f"r-{number}", "labels": ["yes"]}]})


def _ask(client: httpx.Client, path: str, row: tuple[float, ...], headers: dict[str, str]) -> None:
    body = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": row}]}
    client.post(f"/{path}/infer", json=body, headers=headers)


QUERIES = [
    pytest.param(target["expr"], id=f"{name.removesuffix('.json')}: {panel['title']} {target['refId']}")
    for name, text in dashboards().items()
    for panel in json.loads(text)["panels"]
    for target in panel["targets"]
]


def filled_in(expression: str) -> str:
    """The query with a value for each variable."""
    return re.sub(r"\$\{?(\w+)\}?", lambda match: CHOSEN[match[1]], expression)


@pytest.mark.parametrize("expression", QUERIES)
def test_every_panel_shows_something(watched: Watched, expression: str) -> None:
    """A number, where a gateway has answered all kinds of requests."""
    query = filled_in(expression)
    eventually(lambda: bool(watched.prometheus.values(query)), query)


def test_there_are_values_to_choose(watched: Watched) -> None:
    """The variables of dashboards find models and tenants."""
    found = {
        variable["name"]: re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
        for text in dashboards().values()
        for variable in json.loads(text)["templating"]["list"]
        if variable["type"] == "query"
    }
    assert {"model", "tenant"} == set(found)
    for name, match in found.items():
        assert match is not None
        query = f'count({match[1]}{{{match[2]}="{CHOSEN[name]}"}})'
        eventually(lambda: bool(watched.prometheus.values(query)), query)  # noqa: B023 - asked at once


def test_probes_ask_paths_that_answer(watched: Watched) -> None:
    """A ready gateway answers 200 to every probe and scrape that a manifest names."""
    base = render(FOLDER / "base")
    probes = [found[probe] for found in (container(base), runtime()) for probe in found if probe.endswith("Probe")]
    paths = {probe["httpGet"]["path"] for probe in probes}
    (scraped,) = one(render(FOLDER / "overlays" / "cpu"), "PodMonitor")["spec"]["podMetricsEndpoints"]
    assert (6, 2) == (len(probes), len(paths))
    for path in (*paths, scraped["path"]):
        assert 200 == httpx.get(watched.gateway.url + path, timeout=30.0).status_code


def autoscaler_queries() -> dict[str, str]:
    """What KEDA asks, and what prometheus-adapter asks for the names that the HPA knows."""
    scaled = one(render(FOLDER / "overlays" / "cpu"), "ScaledObject")
    queries = {f"keda {trigger['name']}": trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"]}
    adapter = yaml.safe_load((FOLDER / "components" / "hpa" / "adapter.yaml").read_text())["rules"]
    for rule in adapter["custom"] + adapter["external"]:
        series = re.match(r"[\w:]+", rule["seriesQuery"])
        assert series is not None
        name = rule.get("name", {}).get("as", series[0])
        filled = {"<<.Series>>": series[0], "<<.GroupBy>>": "pod", "<<.LabelMatchers>>": 'namespace="pareto"'}
        if not rule["resources"].get("namespaced", True):
            filled["<<.LabelMatchers>>"] = ""
        query = rule["metricsQuery"]
        for template, value in filled.items():
            query = query.replace(template, value)
        queries[f"hpa {name}"] = query
    return queries


def test_autoscalers_ask_for_what_there_is(watched: Watched) -> None:
    """Each query has a number on a loaded gateway's Prometheus, and the HPA names metrics that the adapter makes."""
    queries = autoscaler_queries()
    scaler = one(render(FOLDER / "overlays" / "gpu"), "HorizontalPodAutoscaler")
    named = {metric[metric["type"].lower()]["metric"]["name"] for metric in scaler["spec"]["metrics"]}
    assert {f"hpa {name}" for name in named} == {name for name in queries if name.startswith("hpa")}
    assert 4 == len(queries)
    for name, query in queries.items():
        assert "<<" not in query
        eventually(lambda: bool(watched.prometheus.values(query)), f"{name}: {query}")  # noqa: B023 - asked at once
