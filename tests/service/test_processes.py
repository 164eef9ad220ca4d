"""Executors in processes of their own: models that really crash and hang cost their batch, and the gateway stays."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from loadtests.handmade import CRASHES, HANGS, aborting_model, breaking_model, write_family
from service.settings import Settings
from tests.service.conftest import eventually, sound_again
from tests.service.families import sign_model, write_chain
from tests.service.inprocess import serving
from variants.repository import Repository

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the models break as they do on x86")

SOUND = (1.0, 0.0, 0.0, 0.0)
NOT_FINITE = (1.0, -1e7, 0.0, 0.0)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """`pair`, `twin` and `trio` break as rows tell; `sign` has a variant that breaks on some; `chain` has stages."""
    repository = Repository(tmp_path_factory.mktemp("models"))
    for name in ("pair", "twin", "trio"):
        write_family(repository, name, {"plain": (sign_model(), 0.8), "best": (breaking_model(), 0.9)})
    write_family(repository, "sign", {"plain": (sign_model(limit=1e30), 0.8), "best": (sign_model(1), 0.9)})
    write_chain(repository, "chain")
    return repository


@pytest.fixture(scope="module")
def client(repository: Repository) -> Iterator[httpx.Client]:
    """A gateway in this process, whose two slots are in processes of their own; the better variant always answers."""
    settings = Settings(
        models=repository.root, policy="most-accurate", slots=2, isolation="processes", hang_s=0.2, admin=True
    )
    with serving(settings) as client:
        yield client
    assert executors() == []


def executors() -> list[psutil.Process]:
    """The processes that executors run in, but for those that have ended; templates are their parents."""
    templates = [one for one in psutil.Process().children() if is_there(one) and is_template(one)]
    return [executor for one in templates for executor in children(one) if is_there(executor)]


def children(process: psutil.Process) -> list[psutil.Process]:
    """Those of a process that may end meanwhile, and has none then."""
    with suppress(psutil.NoSuchProcess):
        return list(process.children())
    return []


def is_template(process: psutil.Process) -> bool:
    """Whether executors are made of it."""
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return "service.processes.template" in process.cmdline()
    return False


def is_there(process: psutil.Process) -> bool:
    """Whether it is more than what is left of one that has ended."""
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def ask(client: httpx.Client, path: str, *rows: tuple[float, ...]) -> httpx.Response:
    """An inference request with these rows."""
    data = [value for row in rows for value in row]
    body = {"inputs": [{"name": "x", "shape": [len(rows), 4], "datatype": "FP32", "data": data}]}
    return client.post(f"/v2/models/{path}/infer", json=body)


def lost_slots(client: httpx.Client) -> float:
    """Slots that are out of service."""
    lines = client.get("/metrics").text.splitlines()
    return float(next(line.split()[-1] for line in lines if line.startswith("pareto_slots_lost ")))


def test_answers_are_those_of_threads(client: httpx.Client, repository: Repository) -> None:
    """Whole graphs and stages, one row and several: as a gateway without processes has them."""
    rows = [SOUND, (-2.0, 0.5, 0.1, 3.0), (0.1, 0.0, 0.0, 0.0)]
    versions = [("sign", "plain"), ("sign", "best"), ("pair", "best"), ("chain", "small"), ("chain", "large")]
    with serving(Settings(models=repository.root, slots=1)) as threads:
        for family, variant in versions:
            for count in (1, 3):
                path = f"{family}/versions/{variant}"
                expected, got = (ask(one, path, *rows[:count]).json()["outputs"] for one in (threads, client))
                assert expected == got


@pytest.mark.parametrize(("family", "row", "reason"), [("pair", CRASHES, "crashed"), ("twin", HANGS, "hung")])
def test_what_a_model_does_costs_its_batch_alone(
    client: httpx.Client, family: str, row: tuple[float, ...], reason: str
) -> None:
    """Another variant answers; the one that broke answers nobody until it is probed; the slots come back."""
    before = set(executors())
    answer = ask(client, family, row)
    assert (200, "plain") == (answer.status_code, answer.headers["x-variant"])
    pinned = ask(client, f"{family}/versions/best", SOUND)
    assert (503, "quarantined") == (pinned.status_code, pinned.headers["x-request-dropped-reason"])
    said = f'pareto_variant_faults_total{{model="{family}",reason="{reason}",variant="best"}} 1.0'
    assert said in client.get("/metrics").text
    sound_again(client, family, "best")
    eventually(lambda: lost_slots(client) == 0.0, "the slot is back")
    assert "best" == ask(client, family, SOUND).headers["x-variant"]
    assert 1 == len(before - set(executors()))


def test_a_model_that_aborts_when_it_is_opened_is_refused_by_name(tmp_path: Path) -> None:
    """Also at the start: the other variants of its family serve."""
    write_family(Repository(tmp_path), "abort", {"aborts": (aborting_model(), 0.9), "plain": (sign_model(), 0.8)})
    with serving(Settings(models=tmp_path, slots=1, isolation="processes")) as client:
        answer = ask(client, "abort", SOUND)
        assert (200, "plain") == (answer.status_code, answer.headers["x-variant"])
        index = client.post("/v2/repository/index", json={}).text
        assert "the process that opened it was killed by SIGFPE" in index


def test_a_model_that_is_wrong_keeps_its_process(client: httpx.Client) -> None:
    """Numbers that are not finite are found in the gateway; another variant answers."""
    before = set(executors())
    answer = ask(client, "sign", NOT_FINITE)
    assert (200, "plain") == (answer.status_code, answer.headers["x-variant"])
    sound_again(client, "sign", "best")
    # Beside them there may be the copy in which it was probed, which ends by itself.
    assert before <= set(executors())


def test_the_caller_who_pins_a_model_that_crashes_is_told(client: httpx.Client) -> None:
    """A request that nobody else may answer fails, with its reason."""
    answer = ask(client, "trio/versions/best", CRASHES)
    assert (500, "executor_error") == (answer.status_code, answer.headers["x-request-dropped-reason"])
    sound_again(client, "trio", "best")


def test_executors_that_are_killed_are_replaced(client: httpx.Client) -> None:
    """Whether they are killed one by one or all, with the process that they are made of."""
    killed = set(executors())
    for executor in killed:
        executor.kill()

    def are_replaced() -> bool:
        new = set(executors())
        return lost_slots(client) == 0.0 and len(new) == 2 and new.isdisjoint(killed)

    eventually(are_replaced, "other executors are there")
    assert 200 == ask(client, "pair", SOUND).status_code
    killed = set(executors())
    template = next(iter(killed)).parent()
    assert template is not None
    template.kill()
    eventually(are_replaced, "there is another template, and its executors")
    assert 200 == ask(client, "chain", SOUND).status_code


def test_families_come_and_go(client: httpx.Client, repository: Repository) -> None:
    """A family that is loaded is there for requests at once; one that crashes whoever tries it is refused by name."""
    write_family(repository, "late", {"only": (sign_model(), 0.8)})
    client.post("/v2/repository/models/late/load").raise_for_status()
    assert 200 == ask(client, "late", SOUND).status_code
    client.post("/v2/repository/models/late/unload").raise_for_status()
    assert 404 == ask(client, "late", SOUND).status_code
    write_family(repository, "worst", {"only": (breaking_model(always=True), 0.8)})
    refused = client.post("/v2/repository/models/worst/load")
    assert 400 == refused.status_code
    assert "its process was killed by SIGFPE" in refused.text
    assert 200 == ask(client, "pair", SOUND).status_code


def test_a_gateway_that_is_asked_to_end_answers_first(repository: Repository) -> None:
    """Executors ignore what ends the gateway in order, and end with it."""
    before = set(executors())
    with serving(Settings(models=repository.root, slots=1, isolation="processes")) as client:
        (executor,) = set(executors()) - before
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            executor.send_signal(number)
        assert 200 == ask(client, "pair", SOUND).status_code
        assert executor.is_running()
    executor.wait(10.0)


def test_models_with_threads_of_their_own_are_opened_by_each_executor(repository: Repository) -> None:
    """They do not survive a fork. An executor that takes the place of another opens them, too."""
    settings = Settings(
        models=repository.root, policy="most-accurate", slots=1, threads_per_slot=2, isolation="processes", hang_s=0.2
    )
    with serving(settings) as client:
        for row, variant in ((SOUND, "best"), (CRASHES, "plain"), (HANGS, "plain")):
            sound_again(client, "pair", "best")
            answer = ask(client, "pair", row)
            assert (200, variant) == (answer.status_code, answer.headers["x-variant"])
