"""The memory budget over a real socket: cold families are loaded when they are asked for, within the budget."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from loadtests.servers import Server, gateway, running
from tests.service.conftest import eventually, samples, sign_body
from tests.service.families import sign_model, write_family
from tests.service.test_lifecycle import gauge
from variants.repository import Repository

FAMILIES = 6
BULK = 1_000_000


def bulky_model(matrix_products: int = 0, bulk: int = BULK) -> onnx.ModelProto:
    """A `sign_model` that takes 16 bytes more for each of `bulk`: what requests take is little beside that."""
    model = sign_model(matrix_products)
    weights = numpy_helper.from_array(np.zeros((4, bulk), np.float32), "bulk")
    model.graph.initializer.append(weights)
    model.graph.node[-1].output[0] = "light"
    model.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "columns"))
    model.graph.node.extend(
        [
            helper.make_node("MatMul", ["x", "bulk"], ["wide_nothing"]),
            helper.make_node("ReduceSum", ["wide_nothing", "columns"], ["no_more"], keepdims=1),
            helper.make_node("Add", ["light", "no_more"], ["logits"]),
        ]
    )
    return model


def bulky_pair() -> dict[str, tuple[onnx.ModelProto, float]]:
    """A quick variant, and a slow one which takes more memory by what measurements cannot miss."""
    return {"quick": (bulky_model(), 0.8), "slow": (bulky_model(2, BULK * 3 // 2), 0.9)}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six families of two variants, and one that has a broken file."""
    root = tmp_path_factory.mktemp("many")
    repository = Repository(root)
    for number in range(FAMILIES):
        write_family(repository, f"f{number}", bulky_pair())
    write_family(repository, "sick", {"only": (sign_model(), 0.8)})
    broken = repository.open("sick").file("only/model.onnx")
    with running(gateway(root, {"PARETO_SLOTS": "1"})):
        # Profiles are taken once.
        pass
    broken.write_bytes(broken.read_bytes()[:-100])
    return root


@pytest.fixture(scope="module")
def roomy(many: Path) -> Iterator[Server]:
    """A gateway whose budget holds everything."""
    with running(gateway(many, {"PARETO_SLOTS": "2", "PARETO_MEMORY_BUDGET": "8GiB"})) as server:
        yield server


def sum_of(client: httpx.Client, name: str) -> float:
    """The sum over all series of a metric."""
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + "{", name + " ")))


def ask(server: Server, path: str, timeout_s: float = 30.0) -> httpx.Response:
    return httpx.post(f"{server.url}/v2/models/{path}/infer", json=sign_body(1.0), timeout=timeout_s)


def test_cold_families_answer_their_first_requests(roomy: Server) -> None:
    """Many at once, before anything of theirs is in memory: each is answered."""
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda n: ask(roomy, f"f{n % FAMILIES}"), range(3 * FAMILIES)))
    assert {200} == {answer.status_code for answer in answers}


def test_a_pinned_variant_is_loaded_for_who_pins_it(roomy: Server) -> None:
    """The larger variant answers though the smaller one would do for anybody else."""
    assert "slow" == ask(roomy, "f1/versions/slow").headers["x-variant"]


def test_a_variant_that_cannot_be_loaded_is_refused(roomy: Server) -> None:
    """Its file is broken: the first request learns it at once, and later ones by name."""
    with httpx.Client(base_url=roomy.url, timeout=30.0) as client:
        first = client.post("/v2/models/sick/infer", json=sign_body(1.0))
        assert (503, "not_loaded") == (first.status_code, first.headers["x-request-dropped-reason"])
        assert 404 == client.post("/v2/models/sick/versions/only/infer", json=sign_body(1.0)).status_code
        reasons = {entry["name"]: entry["reason"] for entry in client.post("/v2/repository/index").json()}
        assert "only/model.onnx" in reasons["sick"]
        assert 0 < sum_of(client, "pareto_model_loads_total")


def test_what_is_in_memory_is_shown(roomy: Server) -> None:
    """The index says which variants are ready, the metrics how much they take, a budget, and what is resident."""
    assert 200 == ask(roomy, "f2").status_code
    with httpx.Client(base_url=roomy.url, timeout=30.0) as client:
        ready = client.post("/v2/repository/index", json={"ready": True}).json()
        assert ("f2", "READY") in {(entry["name"], entry["state"]) for entry in ready}
        assert 8 * 1024**3 == gauge(client, "pareto_memory_budget_bytes")
        assert 0 < sum_of(client, "pareto_model_bytes") < gauge(client, "pareto_memory_resident_bytes")


def test_a_tight_budget_moves_families_in_and_out(many: Path, roomy: Server) -> None:
    """With room for few, all families are answered in turn, others make room, and resident memory stays below."""
    with httpx.Client(base_url=roomy.url, timeout=30.0) as client:
        ready = {"ready": True}
        eventually(
            lambda: 2 * FAMILIES == len(client.post("/v2/repository/index", json=ready).json()), "all is in memory"
        )
        empty = gauge(client, "pareto_memory_resident_bytes") - sum_of(client, "pareto_model_bytes")
        each = sum_of(client, "pareto_model_bytes") / FAMILIES
    budget = int(empty + 3.5 * each)
    settings = {"PARETO_SLOTS": "1", "PARETO_MEMORY_BUDGET": str(budget), "PARETO_PINNED": "f0"}
    with running(gateway(many, settings)) as server, httpx.Client(base_url=server.url, timeout=60.0) as client:
        assert client.get("/v2/models/f0/versions/quick/ready").status_code == 200
        for _ in range(3):
            for number in range(FAMILIES):
                for variant in ("", "/versions/slow"):
                    path = f"/v2/models/f{number}{variant}/infer"
                    answer = client.post(path, json=sign_body(1.0))
                    assert 200 == answer.status_code, f"{answer.text} {server.said()[-2000:]}"
                    assert gauge(client, "pareto_memory_resident_bytes") < 1.03 * budget
        assert 0 < gauge(client, "pareto_model_evictions_total")
        assert client.get("/v2/models/f0/versions/quick/ready").status_code == 200
        assert 3 * 2 * FAMILIES == samples(client)


def test_a_family_that_is_not_to_wait_refuses_when_it_is_cold(many: Path) -> None:
    """503, at once; as the budget has no room for anything, it is told so, and of no time to come back.

    A replica with such a budget says that it is not ready, so that others are asked.
    """
    settings = {
        "PARETO_SLOTS": "1",
        "PARETO_MEMORY_BUDGET": "1MiB",
        "PARETO_FAMILIES": '{"f1": {"when_cold": "refuse"}}',
    }
    with running(replace(gateway(many, settings), ready_path="/livez")) as server:
        ready = f"{server.url}/v2/health/ready"
        eventually(lambda: "nothing to serve" in httpx.get(ready).text, "it says that it can answer nobody")
        assert 503 == httpx.get(ready).status_code
        refused = ask(server, "f1")
        assert (503, "not_loaded") == (refused.status_code, refused.headers["x-request-dropped-reason"])
        assert "f1 does not fit into the memory budget" in refused.text
        assert "retry-after" not in refused.headers
        too_large = ask(server, "f2")
        assert (503, "not_loaded") == (too_large.status_code, too_large.headers["x-request-dropped-reason"])
