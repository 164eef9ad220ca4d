"""The live half of the routing benchmark on the tiny family: real gateways that take turns, runs that are resumed."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from loadtests.fetch import fetch
from loadtests.machine import Machine
from loadtests.routing import main
from loadtests.routing_fleet import PINS, Fleet
from loadtests.routing_live import settings_for
from loadtests.routing_live_robustness import copied
from loadtests.routing_runs import read_runs
from loadtests.routing_setup import Calibrated, open_stage, write_machine
from loadtests.servers import ServerError
from variants.profiling import load_profile
from variants.repository import Repository


def options(models: Path, out: Path) -> argparse.Namespace:
    return argparse.Namespace(
        models=models,
        family="tiny",
        variants=None,
        stages="off",
        slots=1,
        margin=1.12,
        server_cores=[],
        slot_cores=[],
        generator_cores=[],
        out=out,
    )


def test_runs_are_made_kept_and_not_made_twice(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A policy and the two best static ones are run live and simulated; a second call has nothing left to run.

    On a busy machine runs are invalid: they are kept as such, and made again.
    """
    given = options(models, tmp_path)
    machine = tmp_path / "machine.json"
    slow = Machine(noise=0.1, batch_s=0.02, request_s=0.0005)
    write_machine(machine, Calibrated(slow), open_stage(given).context)
    flags = ["--live", "--family", "tiny", "--models", str(models), "--out", str(tmp_path), "--machine", str(machine)]
    flags += ["--policies", "slack-fraction", "--traces", "poisson middle 0.7", "--seeds", "1", "--duration", "0.5"]
    flags += ["--server-cores", "--slot-cores", "--generator-cores", "--workers", "1"]
    main(flags)
    _, live = read_runs(tmp_path / "routing_live.json")
    _, simulated = read_runs(tmp_path / "routing_live_simulated.json")
    assert {"slack-fraction", "fixed:small", "fixed:large"} >= {run.policy for run in live} > {"slack-fraction"}
    assert {run.key for run in live} <= {run.key for run in simulated}
    assert {run.arrivals for run in live} == {run.arrivals for run in simulated}
    if not any(run.faults for run in live):
        main(flags)
        assert f"{len(live)} runs are in" in capsys.readouterr().out
        assert repr(live) == repr(read_runs(tmp_path / "routing_live.json")[1])


def test_gateways_take_turns(models: Path, tmp_path: Path) -> None:
    """A frozen gateway answers again once it is its turn; one that lacks a variant is no part of the fleet."""
    given = options(models, tmp_path)
    stage = open_stage(given)
    with Fleet(models, settings_for(given, stage.family), []) as fleet:
        for policy in (PINS, "most-accurate"):
            fleet.start(policy, "tiny", ["small", "large"])
        for policy in (PINS, "most-accurate", PINS):
            with fleet.awake(policy) as server:
                assert 200 == fetch(f"{server.url}/v2/health/ready").status
        with pytest.raises(ServerError, match="does not serve tiny/medium"):
            fleet.start("slack-fraction", "tiny", ["medium"])


def test_a_copied_repository_has_the_wrong_profile(models: Path, tmp_path: Path) -> None:
    """Only the named variant's profile is off; the original is as it was."""
    given = options(models, tmp_path)
    stage = open_stage(given)
    right = load_profile(Repository(models).open("tiny"))
    copy = Repository(copied(stage, tmp_path / "copy", {"small": 0.5})).open("tiny")
    wrong = load_profile(copy)
    assert right is not None
    assert wrong is not None
    assert right.variants["large"] == wrong.variants["large"]
    assert pytest.approx(right.variants["small"].median_s[0][0] * 0.5) == wrong.variants["small"].median_s[0][0]
    assert {} == copy.verify()
