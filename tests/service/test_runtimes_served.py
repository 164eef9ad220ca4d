"""One gateway serves variants of four runtimes over a real socket: routed, pinned, unloaded and loaded again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from loadtests.servers import Server, gateway, running
from tests.ported import built, extended
from tests.service.conftest import eventually, sign_body
from tests.service.test_residency import sum_of
from tests.tflite import save_tflite
from variants.profiling import profile_family, save_profile
from variants.repository import Repository

LOADED = ("float", "float-openvino", "float-torch", "by-hand-litert")
BROKEN = "broken-torch"


def with_a_file_for_litert(repository: Repository) -> None:
    """Publish the active revision once more, with a LiteRT file made by hand and a program that will be broken."""
    folder = repository.open("points")
    manifest = folder.manifest
    with repository.new_staging("points") as staging:
        for entry in manifest.files:
            (staging / entry.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder.file(entry.path), staging / entry.path)
        (staging / "by-hand").mkdir()
        weights = np.array([[-3, 0, 0, 0], [3, 0, 0, 0]], np.float32)
        save_tflite(staging / "by-hand" / "model.tflite", weights, (1, 4))
        (staging / "broken").mkdir()
        shutil.copyfile(folder.file("float-torch/model.pt2"), staging / "broken" / "model.pt2")
        like = {"on_frontier": True, "load_by_default": False, "scores_file": None}
        base, torch = manifest.variant("float"), manifest.variant("float-torch")
        by_hand = {"name": "by-hand-litert", "runtime": "litert", "model_file": "by-hand/model.tflite", **like}
        broken = {"name": BROKEN, "model_file": "broken/model.pt2", **like}
        more = (base.model_copy(update=by_hand), torch.model_copy(update=broken))
        whole = {"revision": "by-hand", "variants": (*manifest.variants, *more), "files": ()}
        repository.publish(manifest.model_copy(update=whole), staging)
    published = repository.open("points")
    save_profile(published, profile_family(published))
    path = published.file("broken/model.pt2")
    path.write_bytes(path.read_bytes()[:-100])


@pytest.fixture(scope="module")
def ported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A gateway under a memory budget, so that variants are opened one by one and closed when they are unloaded."""
    repository = built(tmp_path_factory.mktemp("served"))
    extended(repository, ["openvino", "torch"], ["float"])
    with_a_file_for_litert(repository)
    settings = {
        "PARETO_SLOTS": "2",
        "PARETO_MEMORY_BUDGET": "8GiB",
        "PARETO_ADMIN": "true",
        "PARETO_FAMILIES__POINTS__LOAD": ",".join((*LOADED, BROKEN)),
    }
    with running(gateway(repository.root, settings)) as server:
        yield server


@pytest.fixture
def client(ported: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=ported.url, timeout=60.0) as client:
        yield client


@pytest.mark.parametrize("variant", LOADED)
def test_each_runtime_answers_who_pins_it(client: httpx.Client, variant: str) -> None:
    """By name, three rows at once: the labels are those of the network, whatever computes it."""
    answer = client.post(f"/v2/models/points/versions/{variant}/infer", json=sign_body(2.0, -2.0, 1.0))
    assert 200 == answer.status_code, answer.text
    assert variant == answer.headers["x-variant"]
    labels = next(output["data"] for output in answer.json()["outputs"] if output["name"] == "label")
    assert ["yes", "no", "yes"] == labels


def test_requests_are_routed_among_runtimes(client: httpx.Client) -> None:
    """Whoever names no variant is answered by one of them."""
    answer = client.post("/v2/models/points/infer", json=sign_body(2.0))
    assert 200 == answer.status_code, answer.text
    assert answer.headers["x-variant"] in LOADED


def test_a_corrupt_file_is_refused_alone(client: httpx.Client) -> None:
    """Its variant is refused by name, and all others serve."""
    answer = client.post(f"/v2/models/points/versions/{BROKEN}/infer", json=sign_body(2.0))
    assert answer.status_code in (404, 503), answer.text
    assert 200 == client.post("/v2/models/points/versions/float-torch/infer", json=sign_body(2.0)).status_code


def test_all_are_closed_and_opened_again(client: httpx.Client) -> None:
    """Unloaded, the family takes no memory for models; loaded again, each runtime answers as before."""
    assert 200 == client.post("/v2/repository/models/points/unload", json={}).status_code
    eventually(lambda: sum_of(client, "pareto_model_bytes") == 0, "all models are closed")
    assert 200 == client.post("/v2/repository/models/points/load", json={}).status_code
    for variant in LOADED:
        answer = client.post(f"/v2/models/points/versions/{variant}/infer", json=sign_body(2.0))
        assert (200, variant) == (answer.status_code, answer.headers.get("x-variant"))
