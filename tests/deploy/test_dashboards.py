"""The dashboards' JSON is what the code makes, and every panel shows something of a gateway that answers."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.grafana.generate import FOLDER, dashboards
from loadtests.servers import free_port, gateway, running
from tests.deploy.prometheus import Prometheus, prometheus
from tests.service.conftest import eventually
from tests.service.families import sign_model, write_chain, write_family
from variants.repository import Repository

CHOSEN = {"model": "chain", "tenant": "known", "__rate_interval": "2m"}
"""What the variables of dashboards stand for in these tests."""
SURE, UNSURE, BREAKS = (3.0, 0.0, 0.0, 0.0), (0.05, -3.0, 0.0, 0.0), (0.05, -1e7, 0.0, 0.0)
TENANT = "x-gateway-inference-fairness-id"

Panel = dict[str, Any]


def panels() -> Iterator[tuple[str, Panel]]:
    for name, text in dashboards().items():
        yield from ((name.removesuffix(".json"), panel) for panel in json.loads(text)["panels"])


QUERIES = [
    pytest.param(target["expr"], id=f"{board}: {panel['title']} {target['refId']}")
    for board, panel in panels()
    for target in panel["targets"]
]


def test_the_files_are_what_the_code_makes() -> None:
    """`make dashboards` has been run after the last change, and no file is left of a dashboard that went."""
    assert dashboards() == {path.name: path.read_text() for path in FOLDER.glob("*.json")}


def test_panels_do_not_overlap_and_name_their_source() -> None:
    """Each has a place of its own on the grid of 24 columns, and the data source that is chosen above."""
    for name in dashboards():
        taken: set[tuple[int, int]] = set()
        for board, panel in panels():
            if f"{board}.json" == name:
                at = panel["gridPos"]
                cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
                assert not cells & taken, panel["title"]
                assert max(x for x, _ in cells) < 24
                assert "${datasource}" == panel["datasource"]["uid"]
                taken |= cells


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
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
                yield watching
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


def filled_in(expression: str) -> str:
    """The query with a value for each variable."""
    return re.sub(r"\$\{?(\w+)\}?", lambda match: CHOSEN[match[1]], expression)


@pytest.mark.parametrize("expression", QUERIES)
def test_every_panel_shows_something(watched: Prometheus, expression: str) -> None:
    """A number, where a gateway has answered all kinds of requests."""
    query = filled_in(expression)
    eventually(lambda: bool(watched.values(query)), query)


def test_there_are_values_to_choose(watched: Prometheus) -> None:
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
        eventually(lambda: bool(watched.values(query)), query)  # noqa: B023 - asked at once


def test_the_provisioning_reads_what_is_there() -> None:
    """Its data source is the type that dashboards ask for."""
    folder = Path(FOLDER).parent / "provisioning"
    assert "type: prometheus" in (folder / "datasources" / "prometheus.yml").read_text()
    assert "/var/lib/grafana/dashboards" in (folder / "dashboards" / "pareto.yml").read_text()
