"""The same disturbances on real gateways: a copied repository with wrong profiles, a process that takes the core."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from loadtests.report import write_json
from loadtests.routing_fleet import Fleet
from loadtests.routing_live import Sender, calibrated_machine, settings_for
from loadtests.routing_output import progress, say
from loadtests.routing_robustness import (
    DISTURBANCES,
    HOG,
    PROFILES,
    ROBUST,
    ROBUSTNESS_S,
    STRAGGLER,
    UNDISTURBED,
    check_duration,
    later_s,
    loss_table,
    losses,
    profile_factors,
    straggler_factors,
    traces_of,
)
from loadtests.routing_runs import Key, Run
from loadtests.routing_setup import Stage, bench_for, open_stage, policies_asked_for
from loadtests.servers import pinned
from variants.profiling import VariantTable, load_profile, save_profile
from variants.repository import Repository, RepositoryError

_HOG = """
import time
while True:
    until = time.monotonic() + 1.0
    time.sleep(1.0)
    while time.monotonic() < until + 1.0:
        pass
"""


def live_robustness(options: argparse.Namespace, console: Console) -> None:
    """Run every disturbance live. Raises what the command tells in one line."""
    stage = open_stage(options)
    if stage.folder is None:
        raise ValueError("--live needs a family that is built")
    policies = policies_asked_for(options.policies or ROBUST, stage.family)
    duration_s = options.duration or ROBUSTNESS_S
    check_duration(duration_s)
    seeds = range(1, (options.seeds or 3) + 1)
    runs: dict[str, list[Run]] = {}
    with tempfile.TemporaryDirectory() as folder:
        wrong = profile_factors([variant.name for variant in stage.family.variants], 1)
        groups: list[tuple[Path, tuple[str, ...]]] = [
            (options.models, (UNDISTURBED, *(name for name in DISTURBANCES if name not in (PROFILES, STRAGGLER)))),
            (copied(stage, Path(folder, "profiles"), wrong), (PROFILES,)),
            (copied(stage, Path(folder, "straggler"), straggler_factors(stage.family)), (STRAGGLER,)),
        ]
        for models, disturbances in groups:
            runs |= _group(options, console, stage, models, disturbances, policies, seeds, duration_s)
    found = losses(runs)
    console.print(loss_table(f"Live: {stage.family.name}", found))
    path = options.out / "routing_robustness_live.json"
    write_json(path, {"context": {**stage.context, "commit": stage.commit}, "losses": [loss.json() for loss in found]})
    console.print(f"written: {path}")


def _group(
    options: argparse.Namespace,
    console: Console,
    stage: Stage,
    models: Path,
    disturbances: Sequence[str],
    policies: Sequence[str],
    seeds: Sequence[int],
    duration_s: float,
) -> dict[str, list[Run]]:
    """All runs on gateways of one repository."""
    family = stage.family
    runs: dict[str, list[Run]] = {name: [] for name in disturbances}
    with Fleet(models, settings_for(options, family), options.server_cores) as fleet:
        fleet.start_all(policies, family.name, [variant.name for variant in family.variants], console)
        calibrated, source = calibrated_machine(options, stage, fleet)
        bench = bench_for(stage, options, calibrated, duration_s)
        say(console, stage, bench, source)
        sender = Sender(options, fleet, family.name)
        tasks = [(n, t, s, p) for n in disturbances for t in traces_of(n) for s in seeds for p in policies]
        with progress(console) as bar:
            for name, trace, seed, policy in bar.track(tasks, description="live runs"):
                workload = bench.workload(trace, seed)
                with _neighbour(options.slot_cores or options.server_cores) if name == HOG else nullcontext():
                    judged, results = sender.send(policy, workload)
                key = Key(policy, trace.name, seed)
                later = replace(bench, later_s=later_s(name, duration_s)).later(key, workload, results, judged.faults)
                runs[name] += [Run.judged(key, judged, duration_s), *later]
    return runs


@contextmanager
def _neighbour(cores: Sequence[int]) -> Iterator[None]:
    """A process on these cores that works every other second."""
    with pinned(cores):
        process = subprocess.Popen((sys.executable, "-c", _HOG))
    try:
        yield
    finally:
        process.kill()
        process.wait()


def copied(stage: Stage, root: Path, factors: Mapping[str, float]) -> Path:
    """A repository with this family alone, whose stored profile is off by these factors, by variant.

    A stage is off as the first variant whose path it is part of.
    """
    assert stage.folder is not None, "a family that is served is on disk"
    source = stage.folder.path
    shutil.copytree(source.parent, root / source.parent.name)
    folder = Repository(root).open(stage.family.name)
    profile = load_profile(folder)
    if profile is None:
        raise RepositoryError(f"{folder.path}: has no profile of this machine")
    of_stage = {
        name: factors.get(variant.name, 1.0)
        for variant in reversed(folder.manifest.variants)
        for name in variant.stages
    }
    variants = {name: _scaled(table, factors.get(name, 1.0)) for name, table in profile.variants.items()}
    stages = {name: _scaled(table, of_stage.get(name, 1.0)) for name, table in profile.stages.items()}
    save_profile(folder, profile.model_copy(update={"variants": variants, "stages": stages}))
    return root


def _scaled(table: VariantTable, factor: float) -> VariantTable:
    median_s, tail_s = (
        tuple(tuple(s * factor for s in row) for row in part) for part in (table.median_s, table.tail_s)
    )
    return table.model_copy(update={"median_s": median_s, "tail_s": tail_s})
