"""Two devices of different widths, served over a real socket: both answer, and answers say which one did."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from deploy.ray.variables import variables_of
from loadtests.servers import gateway, running
from service import loading
from service.configuration import SettingsError, load_settings
from service.gateway import Gateway, Phase
from service.loading import Device, load_family
from service.settings import Settings
from tests.service.conftest import sign_body
from tests.service.families import sign_model, write_family
from variants.manifest import ModelFile
from variants.preparation import Row
from variants.profiles import FamilyProfile, load_profile
from variants.profiling import profile_family
from variants.repository import Repository, RepositoryError, RevisionFolder
from variants.session import ModelLoadError, Session, SessionOptions, open_file

INFER = "/v2/models/sign/infer"
DEVICES = '{"narrow": {"threads": 1}, "wide": {"threads": 2}}'


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one family, of a model that takes some milliseconds."""
    repository = Repository(tmp_path_factory.mktemp("models"))
    write_family(repository, "sign", {"slow": (sign_model(40), 0.9)})
    return repository.root


@pytest.fixture(scope="module")
def client(models: Path) -> Iterator[httpx.Client]:
    """A client of a gateway with a slot of two threads and one of one."""
    with running(gateway(models, {"PARETO_DEVICES": DEVICES})) as server, httpx.Client(base_url=server.url) as http:
        yield http


def ask(client: httpx.Client) -> httpx.Response:
    return client.post(INFER, json=sign_body(2.0), headers={"x-slo-latency-ms": "10000"}, timeout=30.0)


def batches(client: httpx.Client) -> dict[str, float]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    named = (sample for family in families for sample in family.samples if sample.name == "pareto_device_batches_total")
    return {sample.labels["device"]: sample.value for sample in named}


def test_both_devices_answer_and_are_named(client: httpx.Client, models: Path) -> None:
    """Side by side there is work for both; header, parameter and metric agree, and each width has its profile."""
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda _: ask(client), range(64)))
    assert {200} == {answer.status_code for answer in answers}
    assert {"yes"} == {answer.json()["outputs"][0]["data"][0] for answer in answers}
    assert {"wide", "narrow"} == {answer.headers["x-device"] for answer in answers}
    assert all(answer.headers["x-device"] == answer.json()["parameters"]["device"] for answer in answers)
    assert {"wide", "narrow"} == {device for device, count in batches(client).items() if count > 0}
    folder = Repository(models).open("sign")
    assert all(load_profile(folder, threads) is not None for threads in (1, 2))


def test_slots_that_are_alike_are_not_named(client: httpx.Client, models: Path) -> None:
    """Without devices answers are as they ever were."""
    with running(gateway(models, {"PARETO_SLOTS": "1"})) as server, httpx.Client(base_url=server.url) as plain:
        answer = ask(plain)
        assert "x-device" not in answer.headers
        assert "device" not in answer.json()["parameters"]
        assert {} == batches(plain)


def test_the_first_slot_is_of_the_widest_device() -> None:
    """Requests are judged by it when they arrive."""
    settings = Settings.model_validate({"devices": {"narrow": {"slots": 2}, "wide": {"threads": 2}}})
    assert [("wide", 2), ("narrow", 1), ("narrow", 1)] == [(slot.device, slot.width) for slot in settings.places]
    assert (3, 2, {"wide": 2, "narrow": 1}) == (settings.slot_count, settings.threads, settings.widths)


def test_another_process_has_the_same_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `pareto serve` hands its settings on."""
    settings = Settings.model_validate({"devices": {"wide": {"threads": 2, "cores": [0, 1]}, "narrow": {}}})
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert settings.devices == load_settings().devices


@pytest.mark.parametrize(("devices", "slots"), [({}, "3"), ({"wide": {"threads": 2}, "narrow": {}}, None)])
def test_a_replica_of_ray_has_a_slot_for_each_core_unless_devices_say_otherwise(
    devices: dict[str, dict[str, int]], slots: str | None
) -> None:
    """With devices, what says how many slots there are is refused."""
    variables = variables_of(Settings.model_validate({"devices": devices}), 3)
    assert slots == variables.get("PARETO_SLOTS")


def test_cores_that_are_not_there_are_told_before_anything_is_read(models: Path) -> None:
    """By the setting and the core, in one line."""
    replica = Gateway(Settings.model_validate({"models": models, "devices": {"wide": {"cores": [900]}, "narrow": {}}}))
    asyncio.run(replica.start())
    assert Phase.BROKEN is replica.phase
    assert ["gateway"] == list(replica.problems)
    assert replica.problems["gateway"].startswith("devices.wide.cores: core 900 is not one this process may use")


def test_a_system_that_does_not_pin_threads_is_told_of(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no such call outside of Linux."""
    monkeypatch.delattr(os, "sched_setaffinity")
    monkeypatch.delattr(os, "sched_getaffinity")
    replica = Gateway(Settings.model_validate({"models": models, "devices": {"wide": {"cores": [0]}, "narrow": {}}}))
    asyncio.run(replica.start())
    assert replica.problems["gateway"].startswith("devices.wide.cores: this system does not pin threads to cores")


def test_a_profile_is_taken_on_the_cores_of_its_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its batches will run; the thread that reads is as free as before."""
    repository = Repository(tmp_path)
    write_family(repository, "sign", {"only": (sign_model(), 0.9)})
    usable = os.sched_getaffinity(0)
    seen: list[set[int]] = []

    def measured(*asked: Any, **options: Any) -> FamilyProfile:
        seen.append(os.sched_getaffinity(0))
        return profile_family(*asked, **options)

    monkeypatch.setattr(loading, "profile_family", measured)
    load_family(repository, "sign", SessionOptions(), devices=[Device("first", SessionOptions(), (min(usable),))])
    assert [{min(usable)}] == seen
    assert usable == os.sched_getaffinity(0)


@pytest.mark.parametrize("rows", [True, False])
def test_a_family_whose_only_variant_another_device_refuses_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: bool
) -> None:
    """Nothing of it can be served, though the first device could; that no rows are there to measure is not why."""
    repository = Repository(tmp_path)
    write_family(repository, "sign", {"only": (sign_model(), 0.9)})

    def opened(folder: RevisionFolder, file: ModelFile, options: SessionOptions) -> Session:
        if options.threads == 1:
            raise ModelLoadError("it does not like to be alone")
        return open_file(folder, file, options)

    def unreadable(*_: object) -> list[Row]:
        raise RepositoryError("the rows cannot be read")

    if not rows:
        monkeypatch.setattr(loading, "sample_rows", unreadable)
    devices = [Device("wide", SessionOptions(threads=2)), Device("narrow", SessionOptions(threads=1))]
    with pytest.raises(RepositoryError, match=r"none of its variants can be loaded \(it does not like to be alone\)"):
        load_family(repository, "sign", SessionOptions(), open_one=opened, devices=devices)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("slots = 2\n[devices.wide]\nthreads = 2\n", "they say how many slots there are and of what; leave"),
        ("threads_per_slot = 2\n[devices.wide]\n", "leave threads_per_slot out"),
        (
            'isolation = "processes"\nmemory_budget = "1GB"\n[devices.wide]\nthreads = 2\n',
            "set threads of devices.wide to 1",
        ),
        ("[devices.wide]\nthreads = 2\ncores = [0]\n", "cores: 1 core for 2 threads"),
        ("[devices.wide]\nthraeds = 2\n", "did you mean devices.wide.threads?"),
        ("[devices.wide]\nthreads = 0\n", "devices.wide.threads"),
        ("[devices.Wide]\n", "devices.Wide"),
        ("[devices.cpu]\n", "cpu is what answers do not name; call it otherwise"),
    ],
)
def test_what_is_wrong_with_devices_is_told_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    """What, where, and what to do."""
    (tmp_path / "pareto.toml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(tmp_path / "pareto.toml")
    (line,) = str(caught.value).splitlines()
    assert told in line
