"""A memory budget where batches run in processes: it holds for all of them, whatever comes, goes and breaks."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import onnx
import psutil
import pytest

from loadtests.handmade import CRASHES, aborting_model, breaking_model
from loadtests.servers import gateway, running
from router.contract import Slot
from service.footprint import OWN
from service.loading import Device
from service.paths import KilledError
from service.piecewise import PiecewiseFamily
from service.processes.footprint import HostedFootprint
from service.processes.host import Host
from service.processes.models import HostedOpener
from service.processes.slot import SlotProcess
from service.settings import Settings
from tests.service.conftest import eventually, samples, sign_body, sound_again
from tests.service.families import sign_model, write_chain, write_family
from tests.service.inprocess import serving
from tests.service.test_lifecycle import gauge
from tests.service.test_processes import SOUND, ask, executors, lost_slots
from tests.service.test_residency import bulky_model, bulky_pair, sum_of
from tests.service.test_template import hosted
from variants.manifest import ModelFile
from variants.profiles import save_profile
from variants.repository import Repository, RepositoryError, RevisionFolder
from variants.runtimes.table import ONNXRUNTIME
from variants.session import Session, SessionOptions

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the models break as they do on x86")

FAMILIES = 5
NAMES = [f"f{number}" for number in range(FAMILIES)]
BULK_BYTES = 16_000_000


class Once(HostedOpener):
    """Opens one model, and is in want of memory for the next."""

    def __call__(self, folder: RevisionFolder, file: ModelFile, options: SessionOptions) -> Session:
        if self.gained_bytes:
            raise KilledError("somebody needed the memory")
        return super().__call__(folder, file, options)


class Silent:
    """Whom a slot tells, where nothing runs."""


@pytest.fixture(scope="module")
def bulky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Families of two variants of 16 and 24 MB, with profiles of this machine."""
    repository = Repository(tmp_path_factory.mktemp("bulky"))
    for name in NAMES:
        write_family(repository, name, bulky_pair())
        PiecewiseFamily(repository, name, SessionOptions(), None, stages="off", cascades=False)
    return repository.root


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    """A gateway in this process that has room for everything, of families of which some break."""
    repository = Repository(tmp_path)
    write_family(repository, "pair", {"plain": (sign_model(), 0.8), "best": (breaking_model(), 0.9)})
    write_family(repository, "opens", {"plain": (sign_model(), 0.8), "aborts": (aborting_model(), 0.9)})
    write_family(repository, "runs", {"plain": (sign_model(), 0.8), "aborts": (breaking_model(always=True), 0.9)})
    write_chain(repository, "chain")
    settings = Settings(
        models=tmp_path,
        policy="most-accurate",
        stages="on",
        slots=2,
        isolation="processes",
        memory_budget="64GiB",
        admin=True,
    )
    for name, unmeasured in (("pair", "best"), ("opens", "aborts"), ("runs", "aborts")):
        family = PiecewiseFamily(repository, name, SessionOptions(), ["plain"], stages="off", cascades=False)
        profile = family.loaded.profile
        known = {"variants": {unmeasured: profile.variants["plain"]}}
        save_profile(repository.open(name), profile.model_copy(update=known))
    with serving(settings) as client:
        yield client


@pytest.mark.parametrize("devices", [(), ("first", "second")])
def test_a_tight_budget_holds_for_all_processes(bulky: Path, devices: Sequence[str]) -> None:
    """With room for few, all families are answered in turn, others make room, and all processes stay below together.

    Devices, which have models of their own each, make no difference to that.
    """
    places = {"PARETO_DEVICES": json.dumps({name: {} for name in devices})} if devices else {"PARETO_SLOTS": "2"}
    processes = {**places, "PARETO_ISOLATION": "processes"}
    roomy = {**processes, "PARETO_MEMORY_BUDGET": "8GiB"}
    with running(gateway(bulky, roomy)) as server, httpx.Client(base_url=server.url, timeout=60.0) as client:
        for number in range(FAMILIES):
            for variant in ("quick", "slow"):
                path = f"/v2/models/f{number}/versions/{variant}/infer"
                assert 200 == client.post(path, json=sign_body(1.0)).status_code
        # All that the server is but for what starts it again.
        (worker,) = [one for one in server.tree() if one.children() and any("worker" in a for a in one.cmdline())]
        used = 0
        for one in (worker, *worker.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                used += one.memory_full_info().pss
        # Of pages of files, which this process has as well, at least the worker's count as a whole.
        assert 0.95 * used < gauge(client, "pareto_memory_resident_bytes") < 1.1 * used + worker.memory_info().shared
        empty = gauge(client, "pareto_memory_resident_bytes") - sum_of(client, "pareto_model_bytes")
        each = sum_of(client, "pareto_model_bytes") / FAMILIES
    # As much as is believed of them before they have been loaded, which corrects it.
    own = [Device(name, SessionOptions()) for name in devices]
    fresh = [
        PiecewiseFamily(Repository(bulky), name, SessionOptions(), None, stages="off", cascades=False, devices=own)
        for name in NAMES
    ]
    largest = max(piece.size("slow") for piece in fresh)
    budget = int(empty + 3.5 * max(each, largest))
    settings = {**processes, "PARETO_MEMORY_BUDGET": str(budget), "PARETO_PINNED": "f0"}
    with running(gateway(bulky, settings)) as server, httpx.Client(base_url=server.url, timeout=60.0) as client:
        assert client.get("/v2/models/f0/versions/quick/ready").status_code == 200
        for _ in range(2):
            for number in range(FAMILIES):
                for variant in ("", "/versions/slow"):
                    answer = client.post(f"/v2/models/f{number}{variant}/infer", json=sign_body(1.0))
                    assert 200 == answer.status_code, f"{answer.text} {server.said()[-2000:]}"
                    assert "yes" == answer.json()["outputs"][0]["data"][0]
                    assert gauge(client, "pareto_memory_resident_bytes") < 1.03 * budget
        assert 0 < gauge(client, "pareto_model_evictions_total")
        assert client.get("/v2/models/f0/versions/quick/ready").status_code == 200
        assert 2 * 2 * FAMILIES == samples(client)


def test_what_is_closed_is_given_back_by_all_processes(tmp_path: Path) -> None:
    """The template closes it, and executors that were copied before have others in their place."""
    path, small = tmp_path / "bulky.onnx", tmp_path / "small.onnx"
    onnx.save(bulky_model(), path)
    onnx.save(sign_model(), small)

    async def does(host: Host) -> None:
        silent: Any = Silent()
        slot = SlotProcess(Slot(0), host, {}, silent)
        footprint = HostedFootprint(host)

        def used() -> int:
            return footprint.resident_bytes() - OWN.resident_bytes()

        async with asyncio.timeout(30.0):
            while not slot.is_up:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.001)
        # It brings the runtime.
        await asyncio.to_thread(host.open, small, SessionOptions(), (), ONNXRUNTIME)
        before = used()
        number, *_ = await asyncio.to_thread(host.open, path, SessionOptions(), (), ONNXRUNTIME)
        (executor,) = psutil.Process(host.process).children()
        assert used() - before > 0.9 * BULK_BYTES
        await asyncio.to_thread(host.close_model, number)
        await asyncio.to_thread(footprint.give_back)
        assert used() - before < 0.2 * BULK_BYTES
        assert [executor] != psutil.Process(host.process).children()
        slot.stop()

    hosted(does)


def test_what_one_device_cannot_open_leaves_the_others(bulky: Path) -> None:
    """What was opened on the device before is in no executor any more."""

    async def does(host: Host) -> None:
        silent: Any = Silent()
        slot = SlotProcess(Slot(0), host, {}, silent)
        footprint, devices = HostedFootprint(host), [Device(name, SessionOptions()) for name in ("first", "second")]
        footprint.open_one = Once(host)
        family = PiecewiseFamily(
            Repository(bulky),
            "f0",
            SessionOptions(),
            None,
            stages="off",
            cascades=False,
            footprint=footprint,
            devices=devices,
        )
        # It brings the runtime.
        path = Repository(bulky).open("f0").file(family.loaded.manifest.variant("quick").model_file)
        number, *_ = await asyncio.to_thread(host.open, path, SessionOptions(), (), ONNXRUNTIME)
        await asyncio.to_thread(host.close_model, number)
        await asyncio.to_thread(footprint.give_back)
        before = footprint.resident_bytes() - OWN.resident_bytes()
        with pytest.raises(KilledError):
            await asyncio.to_thread(family.open, "quick")
        assert footprint.resident_bytes() - OWN.resident_bytes() - before < 0.5 * BULK_BYTES
        slot.stop()

    hosted(does)


@pytest.mark.parametrize(
    ("family", "told"), [("opens", "killed by SIGFPE"), ("runs", "its process was killed by SIGFPE")]
)
def test_a_variant_that_crashes_as_it_is_loaded_is_refused_by_name(
    client: httpx.Client, family: str, told: str
) -> None:
    """The other variant serves, the slots are whole, and who asks for the one that crashes is told why."""

    def refused() -> bool:
        pinned = ask(client, f"{family}/versions/aborts", SOUND)
        assert pinned.status_code in (404, 503)
        return pinned.status_code == 404 and told in pinned.text

    eventually(refused, "it is refused by name")
    answer = ask(client, family, SOUND)
    assert (200, "plain") == (answer.status_code, answer.headers["x-variant"])
    index = {(one["name"], one["version"]): one for one in client.post("/v2/repository/index", json={}).json()}
    assert told in index[family, "aborts"]["reason"]
    assert refused()
    assert 0.0 == lost_slots(client)


def test_a_model_that_crashes_costs_its_batch_alone(client: httpx.Client) -> None:
    """Another variant answers, it is probed, and answers again; it is in memory all the while."""
    sound_again(client, "pair", "best")
    answer = ask(client, "pair", CRASHES)
    assert (200, "plain") == (answer.status_code, answer.headers["x-variant"])
    sound_again(client, "pair", "best")
    assert "best" == ask(client, "pair", SOUND).headers["x-variant"]


def test_stages_are_loaded_as_variants_need_them(client: httpx.Client) -> None:
    """The second exit goes on where the first one left off, in whichever order they are loaded."""
    for variant in ("small", "large", "small"):
        answer = ask(client, f"chain/versions/{variant}", SOUND)
        assert (200, variant, "yes") == (
            answer.status_code,
            answer.headers["x-variant"],
            answer.json()["outputs"][0]["data"][0],
        )


def test_a_template_that_is_killed_comes_back_with_what_is_loaded(client: httpx.Client) -> None:
    """Nothing is loaded anew for that, and later loads go on."""
    all_loaded = 'pareto_model_loads_total{result="loaded"} 6.0'
    eventually(lambda: all_loaded in client.get("/metrics").text, "all that can be loaded is")
    killed = set(executors())
    template = next(iter(killed)).parent()
    assert template is not None
    template.kill()
    eventually(
        lambda: lost_slots(client) == 0.0 and len(set(executors()) - killed) == 2, "there are executors of another one"
    )
    for name in ("pair", "opens", "runs", "chain"):
        assert 200 == ask(client, name, SOUND).status_code
    assert all_loaded in client.get("/metrics").text
    client.post("/v2/repository/models/pair/load", json={}).raise_for_status()


def test_a_family_is_unloaded_and_loaded_by_hand(client: httpx.Client) -> None:
    """As without a budget."""
    assert 200 == ask(client, "pair", SOUND).status_code
    client.post("/v2/repository/models/pair/unload").raise_for_status()
    assert 404 == ask(client, "pair", SOUND).status_code
    client.post("/v2/repository/models/pair/load").raise_for_status()
    assert 200 == ask(client, "pair", SOUND).status_code


def test_variants_that_survive_no_fork_are_refused_by_name(tmp_path: Path) -> None:
    """Each executor would have them for itself. A family that has nothing else is not served, and says why."""
    repository = Repository(tmp_path)
    write_family(
        repository, "f", {"plain": (sign_model(), 0.8), "other": (sign_model(1), 0.9)}, runtimes={"other": "openvino"}
    )
    write_family(repository, "alone", {"other": (sign_model(1), 0.9)}, runtimes={"other": "openvino"})
    settings = Settings(models=tmp_path, slots=1, isolation="processes", memory_budget="64GiB")
    told = "other: on openvino each executor would open it anew"
    with serving(settings) as client:
        assert (200, "plain") == ((answer := ask(client, "f", SOUND)).status_code, answer.headers["x-variant"])
        pinned = ask(client, "f/versions/other", SOUND)
        assert (404, True) == (pinned.status_code, told in pinned.text)
        assert 404 == ask(client, "alone", SOUND).status_code
    nobody: Any = None
    footprint = HostedFootprint(nobody)
    with pytest.raises(RepositoryError, match=told):
        PiecewiseFamily(repository, "alone", SessionOptions(), None, stages="off", cascades=False, footprint=footprint)
