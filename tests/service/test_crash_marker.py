"""A model that ends the serving process: the supervisor starts another one, which knows which variant it was."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import httpx
import pytest

from loadtests.handmade import CRASHES, breaking_model, write_family
from loadtests.isolation_faults import workers
from loadtests.servers import gateway, running
from service.crash_marker import Crashed, CrashMarker, Doing
from tests.service.conftest import eventually, sign_body
from tests.service.families import sign_model
from variants.repository import Repository


def test_what_ran_at_the_end_is_known_to_the_next(tmp_path: Path) -> None:
    """And how often it has; what had ended is not blamed, and nothing is left for the one after that."""
    path = tmp_path / "running"
    for times in (1, 2):
        marker = CrashMarker(path, slots=2)
        marker.begin(0, "f", "1", "fine")
        marker.end(0)
        marker.begin(1, "f", "1", "bad")
        assert (Crashed("f", "1", "bad", times),) == CrashMarker(path, slots=2).crashed
    assert () == CrashMarker(path, slots=2).crashed


def test_probes_are_noted_as_well(tmp_path: Path) -> None:
    """While they run."""
    marker = CrashMarker(tmp_path / "running", slots=1)
    with marker.probing("f", "1", "bad"):
        assert (Crashed("f", "1", "bad", 1, Doing.PROBING),) == CrashMarker(tmp_path / "running", slots=1).crashed
    assert () == CrashMarker(tmp_path / "running", slots=1).crashed


def test_ends_that_are_far_apart_do_not_add_up(tmp_path: Path) -> None:
    """A variant that has been sound since for as long as forgives a strike begins at one again."""
    path, starts_s = tmp_path / "running", iter((0.0, 10.0, 60.0, 3660.0, 3665.0))
    times = []
    for _ in range(5):
        marker = CrashMarker(path, slots=1, clock=lambda: next(starts_s))
        times += [crash.times for crash in marker.crashed]
        marker.begin(0, "f", "1", "bad")
    assert [1, 2, 1, 2] == times


def test_the_likeliest_culprits_come_first(tmp_path: Path) -> None:
    """Who was being probed, then who ran at most ends."""
    path = tmp_path / "running"
    CrashMarker(path, slots=2).begin(0, "f", "1", "often")
    marker = CrashMarker(path, slots=2)
    for slot, variant in enumerate(("once", "often")):
        marker.begin(slot, "f", "1", variant)
    with marker.probing("f", "1", "tried"):
        crashed = CrashMarker(path, slots=2).crashed
    assert [("tried", 1, True), ("often", 2, False), ("once", 1, False)] == [
        (crash.variant, crash.times, crash.is_certain) for crash in crashed
    ]


def test_a_file_that_says_nonsense_blames_nobody(tmp_path: Path) -> None:
    """Torn by the crash, or another version's."""
    path = tmp_path / "running"
    path.write_bytes(b"\xff{" * 40_000)
    assert () == CrashMarker(path, slots=1).crashed
    marker = CrashMarker(path, slots=1)
    marker.begin(0, "f", "1", "bad")
    assert (Crashed("f", "1", "bad", 1),) == CrashMarker(path, slots=1).crashed


def test_its_room_on_the_disk_is_taken_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is none it is an error then; in mapped pages it would end the process under some batch."""
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: write(file, data[: len(data) // 2], at))
    with pytest.raises(OSError, match="No space left"):
        CrashMarker(tmp_path / "running", slots=1)
    monkeypatch.undo()
    assert () == CrashMarker(tmp_path / "running", slots=1).crashed


def test_many_crashes_fit(tmp_path: Path) -> None:
    """The last ones are remembered."""
    path = tmp_path / "running"
    for number in range(600):
        CrashMarker(path, slots=1).begin(0, "family", "revision", f"variant-{number}")
    (crashed,) = CrashMarker(path, slots=1).crashed
    assert Crashed("family", "revision", "variant-599", 1) == crashed


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the model breaks as it does on x86")
def test_who_has_been_started_beside_another_blames_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the other one runs just now did not end it: there is no marker for a second gateway of one parent."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first = CrashMarker.of_supervisor(slots=1)
    assert first is not None
    first.begin(0, "f", "1", "good")
    assert CrashMarker.of_supervisor(slots=1) is None


def test_the_process_is_started_again_and_the_variant_waits(tmp_path: Path) -> None:
    """The request fails with its connection; the next process begins with the variant in quarantine, and serves."""
    write_family(Repository(tmp_path), "pair", {"plain": (sign_model(), 0.8), "best": (breaking_model(), 0.9)})
    settings = {"PARETO_POLICY": "most-accurate", "PARETO_SLOTS": "1"}
    with running(gateway(tmp_path, settings)) as server, httpx.Client(base_url=server.url, timeout=30.0) as client:
        assert 200 == client.post("/v2/models/pair/infer", json=sign_body(1.0)).status_code
        before = workers(server)
        with pytest.raises(httpx.TransportError):
            client.post("/v2/models/pair/infer", json=sign_body(CRASHES[0], second=CRASHES[1]))

        def serves() -> bool:
            try:
                return client.post("/v2/models/pair/infer", json=sign_body(1.0)).status_code == 200
            except httpx.TransportError:
                return False

        eventually(serves, "another process serves")
        assert before != workers(server)
        said = 'pareto_variant_faults_total{model="pair",reason="crashed",variant="best"} 1.0'
        assert said in client.get("/metrics").text
