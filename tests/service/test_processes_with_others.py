"""Executors in processes of their own together with what else there is: trials of revisions, and other runtimes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.settings import Settings
from tests.service.conftest import eventually, sign_body
from tests.service.families import sign_model, write_family
from tests.service.inprocess import serving
from tests.service.test_processes import executors, lost_slots
from variants.repository import Repository
from variants.runtimes.table import lack_of

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="processes are watched by files")

RULES = {"canary_share": 0.5, "canary_answers": 20, "canary_regression": 0.5}
NEVER_SLOW = {"canary_usual": 0.9, "canary_slowdown": 9.9, "canary_risk": 1e-9}
"""A busy machine must not decide these tests; see `tests.service.test_canaries`."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The family `f` in revision 1, one as good and one that answers otherwise."""
    repository = Repository(tmp_path_factory.mktemp("models"))
    for revision, opposite in (("good", False), ("opposite", True), ("1", False)):
        variants = {"quick": (sign_model(opposite=opposite), 0.8), "best": (sign_model(1, opposite=opposite), 0.9)}
        write_family(repository, "f", variants, revision=revision)
    return repository


@pytest.fixture(scope="module")
def client(repository: Repository) -> Iterator[httpx.Client]:
    """A gateway in this process whose slots are not."""
    with serving(Settings(models=repository.root, slots=1, isolation="processes", admin=True)) as client:
        yield client


@pytest.mark.parametrize(
    ("revision", "state", "active"), [("opposite", "disagrees", "1"), ("good", "promoted", "good")]
)
def test_trials_of_revisions_come_to_their_end(
    client: httpx.Client, repository: Repository, revision: str, state: str, active: str
) -> None:
    """Executors get the models of the revision on trial while callers are answered; the better one serves."""
    parameters: dict[str, Any] = {"revision": revision, **RULES, **NEVER_SLOW}
    client.post("/v2/repository/models/f/load", json={"parameters": parameters}).raise_for_status()
    statuses = set()

    def ended() -> bool:
        statuses.add(client.post("/v2/models/f/infer", json=sign_body(1.0)).status_code)
        return bool(client.get("/admin/canaries").json()[0]["state"] != "running")

    eventually(ended, "the trial comes to an end")
    assert state == client.get("/admin/canaries").json()[0]["state"]
    eventually(lambda: repository.active("f") == active, "what serves is the active one")
    answer = client.post("/v2/models/f/infer", json=sign_body(1.0))
    assert (200, "yes") == (answer.status_code, answer.json()["outputs"][0]["data"][0])
    assert {200} == statuses


@pytest.mark.skipif(bool(lack_of("openvino")), reason="OpenVINO is not installed")
def test_other_runtimes_are_opened_by_each_executor(tmp_path: Path) -> None:
    """They have threads of their own, which no fork survives; a new executor opens them, too."""
    variants = {"plain": (sign_model(), 0.8), "other": (sign_model(1), 0.9)}
    write_family(Repository(tmp_path), "f", variants, runtimes={"other": "openvino"})
    others = set(executors())
    with serving(Settings(models=tmp_path, slots=1, isolation="processes")) as client:

        def answered() -> list[tuple[int, list[str]]]:
            asked = [f"/v2/models/f/versions/{variant}/infer" for variant in variants]
            answers = [client.post(path, json=sign_body(1.0, -2.0)) for path in asked]
            return [(one.status_code, one.json()["outputs"][0]["data"]) for one in answers]

        expected = [(200, ["yes", "no"])] * 2
        assert expected == answered()
        killed = set(executors()) - others
        for executor in killed:
            executor.kill()
        eventually(
            lambda: lost_slots(client) == 0.0 and bool(set(executors()) - others - killed), "there is another executor"
        )
        assert expected == answered()
