"""Executors in processes of their own beside devices: each slot has the models of its device."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from loadtests.handmade import CRASHES, breaking_model
from service.settings import Settings
from tests.service.conftest import eventually, sign_body, sound_again
from tests.service.families import sign_model, write_chain, write_family
from tests.service.inprocess import serving
from tests.service.test_processes import SOUND, ask, executors, lost_slots
from variants.repository import Repository
from variants.runtimes.table import lack_of

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "pidfd_open") else []

pytestmark = [
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="the models break as they do on x86"),
    pytest.mark.skipif(len(CORES) < 2, reason="a slot of two threads wants two cores"),
]

WIDE_AND_NARROW: dict[str, Any] = {
    "wide": {"threads": 2, "cores": CORES[:2]},
    "narrow": {"threads": 1, "cores": CORES[-1:]},
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """`slow` takes some milliseconds a row, `pair` has a variant that breaks, `chain` has stages."""
    repository = Repository(tmp_path_factory.mktemp("models"))
    write_family(repository, "slow", {"only": (sign_model(40), 0.9)})
    write_family(repository, "pair", {"plain": (sign_model(), 0.8), "best": (breaking_model(), 0.9)})
    write_chain(repository, "chain")
    return repository


@pytest.fixture(scope="module")
def client(repository: Repository) -> Iterator[httpx.Client]:
    """A gateway in this process with a slot of two threads and one of one, neither of them in it."""
    settings = Settings(
        models=repository.root,
        devices=WIDE_AND_NARROW,
        isolation="processes",
        policy="most-accurate",
        stages="on",
        hang_s=2.0,
    )
    with serving(settings) as client:
        yield client


def answered_on(client: httpx.Client, path: str = "slow") -> set[str]:
    """The devices that answer many callers, all of them rightly."""
    with ThreadPoolExecutor(8) as callers:
        url = f"/v2/models/{path}/infer"
        headers = {"x-slo-latency-ms": "30000"}
        answers = list(callers.map(lambda _: client.post(url, json=sign_body(2.0), headers=headers), range(48)))
    assert {(200, "yes")} == {(one.status_code, one.json()["outputs"][0]["data"][0]) for one in answers}
    return {answer.headers["x-device"] for answer in answers}


def test_both_devices_answer_from_processes_of_their_own(client: httpx.Client) -> None:
    """Each has the threads of its device alone, on its cores; stages are those of the device, too."""
    assert {"wide", "narrow"} == answered_on(client)
    narrow, wide = sorted(executors(), key=psutil.Process.num_threads)
    assert 1 == narrow.num_threads() < wide.num_threads()
    assert (CORES[-1:], CORES[:2]) == (narrow.cpu_affinity(), wide.cpu_affinity())
    assert {"wide", "narrow"} == answered_on(client, "chain/versions/large")


def test_a_crash_on_one_device_is_no_others(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    """Another variant answers the batch, the slot comes back, which the log tells, and both devices answer again."""
    before = set(executors())
    assert {"pareto-slot-0", "pareto-slot-1"} == {executor.name() for executor in before}
    with caplog.at_level(logging.INFO, "pareto.dispatcher"):
        answer = ask(client, "pair", CRASHES)
        eventually(lambda: caplog.messages[-1].endswith(" is back"), "the slot is back")
    (ended,) = (line for line in caplog.messages if line.startswith("the executor of slot "))
    number = caplog.messages[-1].split()[1]
    device = answer_on_device(number)
    assert ended.startswith(f"the executor of slot {number} has ended on {device} under a batch on pair/best: it ")
    assert (200, "plain") == (answer.status_code, answer.headers["x-variant"])
    said = 'pareto_variant_faults_total{model="pair",reason="crashed",variant="best"} 1.0'
    assert said in client.get("/metrics").text
    eventually(lambda: lost_slots(client) == 0.0, "the slot is back")
    assert 1 == len(before - set(executors())), "the other slot's executor is the one that it was"
    sound_again(client, "pair", "best")
    assert 200 == ask(client, "pair/versions/best", SOUND).status_code
    assert {"wide", "narrow"} == answered_on(client)


def answer_on_device(number: str) -> str:
    """Slots are numbered by device, in the order of the settings by their threads."""
    return ("wide", "narrow")[int(number)]


@pytest.mark.skipif(bool(lack_of("openvino")), reason="OpenVINO is not installed")
def test_other_runtimes_are_opened_by_the_executors_of_their_device(tmp_path: Path) -> None:
    """They have threads of their own, as many as the device has; killed, an executor opens them anew."""
    write_family(Repository(tmp_path), "f", {"other": (sign_model(20), 0.9)}, runtimes={"other": "openvino"})
    settings = Settings(models=tmp_path, devices=WIDE_AND_NARROW, isolation="processes")
    others = set(executors())
    with serving(settings) as client:
        assert {"wide", "narrow"} == answered_on(client, "f")
        killed = set(executors()) - others
        for executor in killed:
            executor.kill()
        eventually(
            lambda: lost_slots(client) == 0.0 and len(set(executors()) - others - killed) == len(WIDE_AND_NARROW),
            "there are other executors",
        )
        assert {"wide", "narrow"} == answered_on(client, "f")
