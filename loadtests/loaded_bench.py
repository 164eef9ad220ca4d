"""Which of a family's variants to load, live: `make bench-loaded ARGS="--set a=L4-int8 --set b=L4-fp32-openvino-bf16"`.

A family is served by a gateway for each set of loaded variants, in turns on the same arrivals, beside what it loads by
default. Batches run on one core, event loop and generator on the other, all gateways frozen but the one whose turn it
is. With `--floor` only variants of that accuracy may answer, as where a family has one that is good enough.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loadtests import servers
from loadtests.live import ATTEMPTS, LiveRunError, run_live
from loadtests.paired import mean_difference
from loadtests.report import score_json, write_json
from loadtests.samples import Samples, read_samples
from loadtests.scoring import Score
from loadtests.traces import Shape, TraceError, arrivals
from loadtests.workload import SloMix, Workload
from variants.fingerprint import machine_fingerprint
from variants.manifest import FamilyManifest
from variants.repository import Repository, RepositoryError

DEFAULT = "default"
WARM_UP_PER_S = 100.0
Runs = dict[float, dict[str, list[Score]]]
"""By rate and set, a score a round."""


def sets_of(manifest: FamilyManifest, said: Sequence[str]) -> dict[str, list[str]]:
    """Return the sets to compare, what is loaded by default first; each `said` one is a name, `=`, and variants.

    Raises `ValueError` where there is none, or none such.
    """
    sets = {DEFAULT: [variant.name for variant in manifest.variants if variant.load_by_default]}
    known = [variant.name for variant in manifest.variants]
    for one in said:
        name, _, variants = one.partition("=")
        sets[name] = variants.split(",")
        if unknown := set(sets[name]) - set(known):
            raise ValueError(f"--set {one}: {manifest.name} has no variant {min(unknown)!r}, but {', '.join(known)}")
    if len(sets) < 2:
        raise ValueError("nothing to compare: name other variants to load, as --set NAME=VARIANT,VARIANT")
    return sets


def settings_of(family: str, variants: Sequence[str], options: argparse.Namespace) -> dict[str, str]:
    """The gateway's settings for one set."""
    own = {"load": list(variants), "slo_ms": options.slo, **({"min_accuracy": options.floor} if options.floor else {})}
    pinned = {"PARETO_SLOTS": "1", "PARETO_SLOT_CORES": "0", "PARETO_PAGE": "false"}
    return {"PARETO_CONFIG": "", "PARETO_FAMILIES": json.dumps({family: own}), **pinned}


def run(options: argparse.Namespace, sets: Mapping[str, Sequence[str]], samples: Samples, console: Console) -> Runs:
    """Measure every set at every rate, in turns; a round counts where the runs of all sets were valid."""
    found: Runs = {per_s: {name: [] for name in sets} for per_s in options.rates}
    with ExitStack() as stack:
        gateways = {}
        for name, variants in sets.items():
            command = servers.gateway(options.models, settings_of(options.family, variants, options))
            gateways[name] = stack.enter_context(servers.running(command, (0, 1)))
            stack.callback(gateways[name].thaw)
            run_live(
                gateways[name].url, options.models, options.family, _draw(samples, WARM_UP_PER_S, options, 0), (1,)
            )
            gateways[name].freeze()
        for number in range(options.rounds):
            for per_s in options.rates:
                workload = _draw(samples, per_s, options, 1 + number)
                names = list(sets)[number % len(sets) :] + list(sets)[: number % len(sets)]
                scores = {name: _valid(gateways[name], options, workload) for name in names}
                kept = {name: one for name, one in scores.items() if one is not None}
                said = ", ".join(f"{name} {100 * one.attainment:.1f}" for name, one in kept.items())
                console.print(f"  round {number + 1}, {per_s:g}/s: in time % {said}")
                if len(kept) == len(sets):
                    for name, one in kept.items():
                        found[per_s][name].append(one)
    return found


def _draw(samples: Samples, per_s: float, options: argparse.Namespace, seed: int) -> Workload:
    rng = np.random.default_rng([seed, int(per_s)])
    arrival_s = arrivals("poisson", per_s, options.duration, Shape(), rng)
    return Workload.draw(arrival_s, SloMix.parse(f"{options.slo:g}"), len(samples), rng)


def _valid(server: servers.Server, options: argparse.Namespace, workload: Workload) -> Score | None:
    """The first valid run of several."""
    server.thaw()
    try:
        runs = (run_live(server.url, options.models, options.family, workload, (1,)) for _ in range(ATTEMPTS))
        return next((one for one in runs if one.valid), None)
    finally:
        server.freeze()


def report(found: Runs, console: Console) -> None:
    """Print what was in time and what was right, and by how much each set is ahead of the one without."""
    names = list(next(iter(found.values())))
    table = Table("requests/s", *(f"{name}: in time % / correct in time %" for name in names), title="medians (spread)")
    for per_s, by_name in found.items():
        if all(by_name.values()):
            table.add_row(f"{per_s:g}", *(_cell(scores) for scores in by_name.values()))
    console.print(table)
    for name in names:
        pairs = [
            [100.0 * (mine.attainment - theirs.attainment) for mine, theirs in zip(by[name], by[DEFAULT], strict=True)]
            for by in found.values()
        ]
        if name != DEFAULT and all(pairs):
            gain = mean_difference(pairs)
            console.print(
                f"{name} minus {DEFAULT}, in time: {gain.mean:+.1f} points ({gain.low:+.1f} to {gain.high:+.1f})"
            )


def _cell(scores: Sequence[Score]) -> str:
    in_time = [100.0 * one.attainment for one in scores]
    right = statistics.median(100.0 * one.effective_accuracy for one in scores)
    return f"{statistics.median(in_time):.1f} ({min(in_time):.1f}-{max(in_time):.1f}) / {right:.1f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write `loaded.json`. Ends with one line where that cannot be done."""
    parser = argparse.ArgumentParser(
        prog="bench-loaded", description="sets of loaded variants against each other, live"
    )
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--family", default="sentiment")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VARIANT,...", help="a set to load")
    parser.add_argument(
        "--floor", type=float, default=0.0, help="least accuracy that may answer, 0 to 1 (default: any)"
    )
    parser.add_argument("--slo", type=float, default=50.0, help="milliseconds (default 50)")
    parser.add_argument("--rates", type=float, nargs="+", default=[300.0, 500.0, 700.0], help="requests a second")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--duration", type=float, default=5.0, help="seconds of each run (default 5)")
    parser.add_argument("--out", type=Path, default=Path("loadtests/results"))
    options = parser.parse_args(arguments)
    console = Console(width=160)
    try:
        folder = Repository(options.models).open(options.family)
        sets = sets_of(folder.manifest, options.set)
        found = run(options, sets, read_samples(folder), console)
    except (LiveRunError, RepositoryError, TraceError, servers.ServerError, OSError, ValueError) as error:
        console.print(f"[red]bench-loaded:[/] {escape(str(error))}")
        sys.exit(1)
    report(found, console)
    scores = {
        f"{rate:g}": {name: [score_json(s) for s in some] for name, some in by.items()} for rate, by in found.items()
    }
    said = {name: str(value) for name, value in vars(options).items()}
    context = {"machine": machine_fingerprint().description, "options": said, "sets": sets, "scores": scores}
    write_json(options.out / "loaded.json", context)


if __name__ == "__main__":
    main()
