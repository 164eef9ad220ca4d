"""Families come, change and go while requests flow, through Triton's own client and over a real socket."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from loadtests.servers import Server, gateway, running
from tests.service.conftest import eventually, samples, sign_body
from tests.service.families import sign_model, write_family
from tests.service.test_lifecycle import worker_of
from variants.repository import Repository


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository that changes while it is served, and a settings file that does."""
    root = tmp_path_factory.mktemp("changing")
    write_family(Repository(root / "models"), "f", {"quick": (sign_model(), 0.8)})
    (root / "pareto.toml").write_text("admin = true\nslots = 1\n", encoding="utf-8")
    return root


@pytest.fixture(scope="module", params=["everything", "budget"])
def changing(folder: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    """A gateway that callers may change, with and without a memory budget."""
    (folder / "pareto.toml").write_text("admin = true\nslots = 1\n", encoding="utf-8")
    budget = {"PARETO_MEMORY_BUDGET": "8GiB"} if request.param == "budget" else {}
    with running(gateway(folder / "models", {"PARETO_CONFIG": str(folder / "pareto.toml"), **budget})) as server:
        yield server


@pytest.fixture
def client(changing: Server) -> triton.InferenceServerClient:
    """NVIDIA's client."""
    return triton.InferenceServerClient(changing.url.removeprefix("http://"), network_timeout=60.0)


def infer(client: triton.InferenceServerClient, name: str) -> str:
    given = triton.InferInput("x", [1, 4], "FP32")
    given.set_data_from_numpy(np.array([[1, 0, 0, 0]], np.float32))
    return client.infer(name, [given]).get_response()["model_version"]  # type: ignore[no-any-return]  # untyped


def states(client: triton.InferenceServerClient) -> dict[str, str]:
    return {entry["name"]: entry["state"] for entry in client.get_model_repository_index()}


def test_a_family_that_appears_is_loaded_and_unloaded(folder: Path, client: triton.InferenceServerClient) -> None:
    """Its folder comes after the start: load, infer, unload, load again; the index and readiness follow."""
    write_family(Repository(folder / "models"), "late", {"only": (sign_model(), 0.8)})
    try:
        assert not client.is_model_ready("late")
        for _ in range(2):
            client.load_model("late")
            assert client.is_model_ready("late")
            assert client.is_model_ready("late", "only")
            assert ("only", "READY") == (infer(client, "late"), states(client)["late"])
            client.unload_model("late")
            assert (False, "UNAVAILABLE") == (client.is_model_ready("late"), states(client)["late"])
            with pytest.raises(InferenceServerException, match="not found"):
                infer(client, "late")
    finally:
        shutil.rmtree(folder / "models" / "late")


@pytest.mark.parametrize("action", ["load", "unload"])
def test_what_is_not_there_is_a_404(changing: Server, action: str) -> None:
    """The error names it."""
    answer = httpx.post(f"{changing.url}/v2/repository/models/nobody/{action}", timeout=30.0)
    assert (404, True) == (answer.status_code, "nobody" in answer.json()["error"])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"parameters": {"revision": "none"}}, "no revision 'none' here"),
        ({"parameters": {"revision": 7}}, "parameters.revision"),
        ({"parameters": {"config": "{}"}}, "`revision` alone"),
        ([], "an object"),
    ],
)
def test_what_cannot_be_loaded_is_a_400_that_says_why(changing: Server, body: object, expected: str) -> None:
    """And what was served before is served on."""
    answer = httpx.post(f"{changing.url}/v2/repository/models/f/load", json=body, timeout=30.0)
    assert (400, True) == (answer.status_code, expected in answer.json()["error"])
    assert 200 == httpx.post(f"{changing.url}/v2/models/f/infer", json=sign_body(1.0), timeout=30.0).status_code


def test_another_revision_takes_over_without_losing_a_request(folder: Path, changing: Server) -> None:
    """While four callers ask all the time, revisions are swapped; every answer is a 200 of one of them."""
    repository = Repository(folder / "models")
    first = repository.active("f")
    if "second" not in repository.revisions("f"):
        shutil.copytree(folder / "models" / "f" / first, folder / "models" / "f" / "second")
        manifest = folder / "models" / "f" / "second" / "family.json"
        text = manifest.read_text(encoding="utf-8").replace(f'"revision": "{first}"', '"revision": "second"')
        manifest.write_text(text.replace("0.8", "0.85"), encoding="utf-8")
        shutil.rmtree(folder / "models" / "f" / "second" / "profiles", ignore_errors=True)
    seen: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=changing.url, timeout=60.0) as http:
            while not stop.is_set():
                seen.append(http.post("/v2/models/f/infer", json=sign_body(1.0)).status_code)

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    try:
        with httpx.Client(base_url=changing.url, timeout=60.0) as http:
            for revision in ("second", first, "second", first):
                before = len(seen)
                body = {"parameters": {"revision": revision}}
                answer = http.post("/v2/repository/models/f/load", json=body)
                assert (200, b"{}") == (answer.status_code, answer.content)
                assert revision == repository.active("f")
                eventually(lambda before=before: len(seen) > before + 20, "requests flow")  # type: ignore[misc]  # bound
    finally:
        stop.set()
        for asker in askers:
            asker.join()
    assert {200} == set(seen)


def test_settings_are_read_again(folder: Path, changing: Server) -> None:
    """What can change does, on request and at SIGHUP; what cannot is named; a fault changes nothing."""
    file = folder / "pareto.toml"
    usual = "admin = true\nslots = 1\n"
    with httpx.Client(base_url=changing.url, timeout=30.0) as http:
        try:
            file.write_text(
                usual.replace("1", "2") + 'policy = "fluid"\n[families.f]\nslo_ms = 0.001\n', encoding="utf-8"
            )
            said = http.post("/admin/reload").json()
            assert {"applied": ["families.f.slo_ms"], "needs_restart": ["policy", "slots"]} == said
            assert 429 == http.post("/v2/models/f/infer", json=sign_body(1.0)).status_code
            file.write_text(usual + "slo = 1\n", encoding="utf-8")
            refused = http.post("/admin/reload")
            assert (400, True) == (refused.status_code, "slo" in refused.json()["error"])
            file.write_text(usual, encoding="utf-8")
            worker_of(changing).send_signal(signal.SIGHUP)
            eventually(
                lambda: http.post("/v2/models/f/infer", json=sign_body(1.0)).status_code == 200, "the SLO is back"
            )
        finally:
            file.write_text(usual, encoding="utf-8")


def test_tenants_are_read_again(folder: Path, changing: Server) -> None:
    """A quota holds from then on and for no longer than its table stands there, and so does the tenant's label."""
    file = folder / "pareto.toml"
    usual = "admin = true\nslots = 1\n"
    with httpx.Client(base_url=changing.url, timeout=30.0) as http:

        def ask() -> tuple[int, str | None]:
            headers = {"x-gateway-inference-fairness-id": "small"}
            answer = http.post("/v2/models/f/infer", json=sign_body(1.0), headers=headers)
            return answer.status_code, answer.headers.get("x-request-dropped-reason")

        try:
            assert (200, None) == ask()
            assert 0 == samples(http, tenant="small")
            file.write_text(usual + "[tenants.small]\nrate = 0.001\nburst = 1\n", encoding="utf-8")
            assert {"applied": ["tenants"], "needs_restart": []} == http.post("/admin/reload").json()
            assert [(200, None), (429, "quota")] == [ask(), ask()]
            assert 2 == samples(http, tenant="small")
            file.write_text(usual, encoding="utf-8")
            http.post("/admin/reload")
            assert (200, None) == ask()
            assert 2 == samples(http, tenant="other")
        finally:
            file.write_text(usual, encoding="utf-8")
            http.post("/admin/reload")


def test_changes_are_closed_by_default(server: Server) -> None:
    """403, and what to do about it; the index and how trials stand stay open."""
    model, trial = "/v2/repository/models/sign", "/admin/canaries/sign"
    for path in (f"{model}/load", f"{model}/unload", "/admin/reload", f"{trial}/promote", f"{trial}/rollback"):
        answer = httpx.post(server.url + path, timeout=30.0)
        assert (403, True) == (answer.status_code, "`admin = true` or `admin_port`" in answer.json()["error"])
    assert 200 == httpx.post(server.url + "/v2/repository/index", timeout=30.0).status_code
    assert [] == httpx.get(server.url + "/admin/canaries", timeout=30.0).json()
