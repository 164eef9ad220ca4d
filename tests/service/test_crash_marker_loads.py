"""Models that end the serving process while they are loaded or first measured: who is left out, and who is forgiven."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from loadtests.handmade import aborting_model, write_family
from loadtests.servers import ROOT, gateway, running
from service.crash_marker import PROBES, Crashed, CrashMarker, Doing
from service.loading import load_family
from service.piecewise import Opened, PiecewiseFamily
from tests.service.conftest import sign_body
from tests.service.families import aborting_at_four_rows, sign_model
from variants.repository import Repository
from variants.session import SessionOptions

ENDED: list[ExitStack] = []
"""Kept, because what is entered on them would be left when they are collected."""


@contextmanager
def ends() -> Iterator[ExitStack]:
    """What is entered on the stack is not left, as where the process ends meanwhile."""
    with ExitStack() as stack:
        yield stack
        ENDED.append(stack.pop_all())


def left_out_by_starts(path: Path, bad: Collection[str], apart_s: float, starts: int) -> list[str]:
    """The variants of a, b and c that each of so many processes leaves out: it loads them, and ends by a `bad` one."""
    found = []
    times_s = itertools.count(step=apart_s)
    for _ in range(starts):
        marker = CrashMarker(path, slots=1, clock=lambda: next(times_s))
        kept = [variant for variant in "abc" if not marker.left_out("f", "1", variant)]
        found.append("".join(sorted(set("abc") - set(kept))))
        with ends() as stack:
            for variant in kept:
                stack.enter_context(marker.loading("f", "1", variant))
                if variant in bad:
                    break
                stack.close()
                marker.loaded("f", "1", variant)
    return found


@pytest.mark.parametrize("apart_s", [1.0, 1e6])
def test_variants_that_end_the_process_while_they_are_loaded_are_left_out_one_by_one(
    tmp_path: Path, apart_s: float
) -> None:
    """After two ends each, however far apart, and for good: what the other one does brings none of them back."""
    assert ["", "", "a", "a", "ab", "ab"] == left_out_by_starts(tmp_path / "running", "ab", apart_s, starts=6)


def test_who_is_left_out_stays_so_whatever_else_ends_the_process(tmp_path: Path) -> None:
    """A batch of another variant, nothing that was noted, and many variants after each other; others are not meant."""
    path = tmp_path / "running"
    left_out_by_starts(path, "a", 1.0, starts=2)
    CrashMarker(path, slots=1).begin(0, "f", "1", "b")
    CrashMarker(path, slots=1)
    for number in range(600):
        CrashMarker(path, slots=1).begin(0, "family", "revision", f"variant-{number}")
    marker = CrashMarker(path, slots=1)
    assert [2, 0, 0] == [marker.left_out("f", *key) for key in (("1", "a"), ("2", "a"), ("1", "b"))]


def test_a_load_that_succeeds_forgives_the_end_before(tmp_path: Path) -> None:
    """Ends while it was loaded count as long as none succeeded between them."""
    path = tmp_path / "running"
    for _ in range(3):
        assert [""] == left_out_by_starts(path, "a", 1.0, starts=1)
        assert [""] == left_out_by_starts(path, "", 1.0, starts=1)


@pytest.mark.parametrize("also", [Doing.RUNNING, Doing.PROBING, Doing.LOADING])
def test_who_is_loaded_beside_others_may_be_a_bystander(tmp_path: Path, also: Doing) -> None:
    """It is not certain to be the culprit, and may be loaded again however often that happens."""
    path = tmp_path / "running"
    for times in (1, 2, 3):
        marker = CrashMarker(path, slots=1)
        with ends() as stack:
            stack.enter_context(marker.loading("f", "1", "sound"))
            if also is Doing.RUNNING:
                marker.begin(0, "f", "1", "other")
            else:
                note = marker.probing if also is Doing.PROBING else marker.loading
                stack.enter_context(note("f", "1", "other"))
        after = CrashMarker(path, slots=1)
        assert Crashed("f", "1", "sound", times, Doing.RUNNING) in after.crashed
        assert not after.left_out("f", "1", "sound")


def test_who_was_loaded_beside_others_is_tried_alone_by_the_next_process(tmp_path: Path) -> None:
    """Before requests come, and once: so the end by a model that aborts is nobody else's the next time."""
    models, path = tmp_path / "models", tmp_path / "running"
    write_family(Repository(models), "f", {"a": (sign_model(), 0.8), "b": (sign_model(), 0.9)})
    load_family(Repository(models), "f", SessionOptions())
    marker = CrashMarker(path, slots=1)
    marker.begin(0, "f", "1", "b")
    with ends() as stack:
        stack.enter_context(marker.loading("f", "1", "a"))
    opened: list[str] = []
    marker = CrashMarker(path, slots=1)

    class Watched(PiecewiseFamily):
        def open(self, variant: str, *, in_haste: bool = False) -> Opened:
            opened.append(variant)
            return super().open(variant, in_haste=in_haste)

    for _ in range(2):
        family = Watched(Repository(models), "f", SessionOptions(), None, stages="off", cascades=False, marker=marker)
        assert {} == family.paths
    assert ["a"] == opened


def test_ends_while_it_ran_do_not_count_as_ends_while_it_was_loaded(tmp_path: Path) -> None:
    """The first end by its load is the first one, and the blame is certain."""
    path = tmp_path / "running"
    CrashMarker(path, slots=1).begin(0, "f", "1", "a")
    left_out_by_starts(path, "a", 1.0, starts=1)
    marker = CrashMarker(path, slots=1)
    assert ((Crashed("f", "1", "a", 1, Doing.LOADING),), 0) == (marker.crashed, marker.left_out("f", "1", "a"))


def test_a_long_load_stays_noted_whatever_is_probed_meanwhile(tmp_path: Path) -> None:
    """Notes have places of their own until they are given back, and what finds none is not noted."""
    path = tmp_path / "running"
    marker = CrashMarker(path, slots=1)
    with ends() as stack:
        stack.enter_context(marker.loading("f", "1", "slow"))
        for number in range(3 * PROBES):
            with marker.probing("f", "1", f"probe-{number}"):
                pass
    assert (Crashed("f", "1", "slow", 1, Doing.LOADING),) == CrashMarker(path, slots=1).crashed
    marker = CrashMarker(path, slots=1)
    with ends() as stack:
        for number in range(PROBES + 1):
            stack.enter_context(marker.probing("f", "1", f"probe-{number}"))
    assert PROBES == len(CrashMarker(path, slots=1).crashed)


def load_in_a_process(models: Path, marker: Path) -> tuple[int, str]:
    """Load the family `abort` in a process of its own: what it exits with, and says of the variants that it refuses."""
    code = (
        "import sys; from pathlib import Path; from service.crash_marker import CrashMarker; "
        "from service.loading import load_family; from variants.repository import Repository; "
        "from variants.session import SessionOptions; models, marker = map(Path, sys.argv[1:]); "
        "loaded = load_family(Repository(models), 'abort', SessionOptions(), marker=CrashMarker(marker, 1)); "
        "print(*loaded.paths, loaded.refused)"
    )
    command = [sys.executable, "-c", code, str(models), str(marker)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    return done.returncode, done.stdout


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the model breaks as it does on x86")
def test_a_model_that_aborts_when_it_is_measured_is_left_out(tmp_path: Path) -> None:
    """It answers the batches that it is tried with; the profile takes another one, by which two processes end."""
    models, path = tmp_path / "models", tmp_path / "running"
    write_family(Repository(models), "abort", {"plain": (sign_model(), 0.8), "four": (aborting_at_four_rows(), 0.9)})
    (*ended, (code, said)) = [load_in_a_process(models, path) for _ in range(3)]
    assert [(-signal.SIGFPE, "")] * 2 == ended
    assert code == 0
    assert "plain {'four': 'four: the process has ended 2 times while it was loaded" in said


@pytest.mark.parametrize("piecewise", [False, True])
def test_a_family_that_is_loaded_says_so(tmp_path: Path, *, piecewise: bool) -> None:
    """The end before is forgiven: the next one is the first again."""
    models, path = tmp_path / "models", tmp_path / "running"
    write_family(Repository(models), "f", {"a": (sign_model(), 0.8)})
    load_family(Repository(models), "f", SessionOptions())
    left_out_by_starts(path, "a", 1.0, starts=1)
    marker = CrashMarker(path, slots=1)
    if piecewise:
        family = PiecewiseFamily(
            Repository(models), "f", SessionOptions(), None, stages="off", cascades=False, marker=marker
        )
        family.open("a")
    else:
        load_family(Repository(models), "f", SessionOptions(), marker=marker)
    left_out_by_starts(path, "a", 1.0, starts=1)
    assert 0 == CrashMarker(path, slots=1).left_out("f", "1", "a")


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the model breaks as it does on x86")
def test_models_that_abort_when_they_are_opened_are_left_out_after_two_ends_each(tmp_path: Path) -> None:
    """Then the others of their family serve; who asks is told why, and what is refused is in no quarantine."""
    bad = {name: (aborting_model(), 0.9) for name in ("aborts", "too")}
    write_family(Repository(tmp_path), "abort", {**bad, "plain": (sign_model(), 0.8)})
    settings = {"PARETO_SLOTS": "1"}
    with running(gateway(tmp_path, settings)) as server, httpx.Client(base_url=server.url, timeout=30.0) as client:
        answer = client.post("/v2/models/abort/infer", json=sign_body(1.0))
        assert (200, "plain") == (answer.status_code, answer.headers["x-variant"])
        index = client.post("/v2/repository/index", json={}).text
        for name in bad:
            said = f"{name}: the process has ended 2 times while it was loaded"
            pinned = client.post(f"/v2/models/abort/versions/{name}/infer", json=sign_body(1.0))
            assert (404, True, True) == (pinned.status_code, said in pinned.text, said in index)
        assert "is in quarantine" not in server.said()
