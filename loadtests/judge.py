"""An independent judge: the highest rate that MLCommons LoadGen calls valid, policy by policy (`make judge`).

LoadGen (PyPI `mlcommons-loadgen`) draws the arrivals, keeps the time and gives the verdict; see `loadtests.loadgen`.
The rate is found by doubling or halving until the verdict changes, then by halving the gap. An invalid run is repeated,
since the machine may have been disturbed, so a rate counts as valid if one of `--attempts` runs is.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loadtests import servers
from loadtests.calibration import capacity_per_s
from loadtests.fetch import fetch
from loadtests.generator_faults import MAX_GENERATOR_CPU
from loadtests.report import milliseconds, percent, write_json
from loadtests.samples import read_samples
from router.policies import policy_named
from variants.fingerprint import machine_fingerprint
from variants.profiles import load_profile, to_router_family
from variants.repository import Repository, RepositoryError, RevisionFolder

if TYPE_CHECKING:
    from loadtests.loadgen import Verdict

LEAST_PER_S, MOST_PER_S = 10.0, 20_000.0
"""Where the search ends if the verdict never changes."""
MISSING = "`make judge` in a checkout installs it and runs this"


class JudgeError(Exception):
    """There is no verdict. The message is one line."""


def highest_valid(run: Callable[[float], bool], first: float, precision: float) -> float:
    """The highest rate at which `run` is true, to within `precision` (0.05 is 5 %); 0.0 where even the least is not.

    `first` is where to begin. Higher rates are taken to be harder.
    """
    rate = min(max(first, LEAST_PER_S), MOST_PER_S)
    if run(rate):
        valid, invalid = rate, math.inf
        while invalid == math.inf:
            if valid >= MOST_PER_S:
                return valid
            rate = min(2.0 * valid, MOST_PER_S)
            valid, invalid = (rate, invalid) if run(rate) else (valid, rate)
    else:
        valid, invalid = 0.0, rate
        while valid == 0.0:
            if invalid <= LEAST_PER_S:
                return 0.0
            rate = max(invalid / 2.0, LEAST_PER_S)
            valid, invalid = (rate, invalid) if run(rate) else (valid, rate)
    while invalid > valid * (1.0 + precision):
        rate = math.sqrt(valid * invalid)
        valid, invalid = (rate, invalid) if run(rate) else (valid, rate)
    return valid


def main(arguments: Sequence[str] | None = None) -> None:
    """Judge, print, write JSON. Ends with one line where that cannot be done."""
    options = _parser().parse_args(arguments)
    console = Console()
    try:
        _judge_all(options, console)
    except ModuleNotFoundError as error:
        console.print(f"[red]judge:[/] {error.name} is missing: {MISSING}")
        sys.exit(1)
    except (JudgeError, RepositoryError, servers.ServerError, OSError, ValueError) as error:
        console.print(f"[red]judge:[/] {escape(str(error))}")
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("[red]judge:[/] interrupted")
        sys.exit(130)


def _judge_all(options: argparse.Namespace, console: Console) -> None:
    _check(options)
    folder = Repository(options.models).open(options.family)
    slo_s = options.slo_ms / 1e3 if options.slo_ms else folder.manifest.default_slo_s
    if slo_s <= options.allowance_ms / 1e3:
        raise JudgeError(f"of an SLO of {slo_s * 1e3:g} ms an allowance of {options.allowance_ms:g} ms leaves nothing")
    console.print(
        f"{options.family}, target latency {slo_s * 1e3:g} ms at p99, {options.duration:g} s a run, "
        f"server on cores {options.server_cores}, LoadGen on {options.generator_cores}",
        soft_wrap=True,
    )
    first = options.rate or _first_rate(folder)
    runs = {policy: _judge_one(policy, folder, slo_s, first, options, console) for policy in options.policies}
    best = {policy: max((v for v in verdicts if v.valid), key=_rate, default=None) for policy, verdicts in runs.items()}
    console.print(table(best))
    values = {
        "machine": machine_fingerprint().description,
        "family": options.family,
        "revision": folder.manifest.revision,
        "slo_s": slo_s,
        "duration_s": options.duration,
        "slots": options.slots,
        "stages": options.stages,
        "highest_valid_per_s": {policy: verdict.rate if verdict else None for policy, verdict in best.items()},
        "runs": {policy: [asdict(verdict) for verdict in verdicts] for policy, verdicts in runs.items()},
    }
    write_json(options.out / "judge.json", values)
    console.print(f"written: {options.out / 'judge.json'}", soft_wrap=True)


def _judge_one(
    policy: str, folder: RevisionFolder, slo_s: float, first: float, options: argparse.Namespace, console: Console
) -> list[Verdict]:
    """All runs of one policy, on a gateway of its own."""
    from loadtests.loadgen import Target, judge  # noqa: PLC0415 - LoadGen is not part of the environment

    verdicts: list[Verdict] = []
    settings = {
        "PARETO_CONFIG": "",
        "PARETO_POLICY": policy,
        "PARETO_SLOTS": str(options.slots),
        "PARETO_STAGES": options.stages,
    }
    with servers.running(servers.gateway(options.models, settings), options.server_cores) as server:
        if fetch(f"{server.url}/v2/models/{options.family}").status != 200:
            raise JudgeError(f"the gateway does not serve {options.family}; its log says why")
        target = Target(server.url, read_samples(folder), slo_s, slo_s - options.allowance_ms / 1e3)

        def run(rate: float) -> bool:
            for _ in range(options.attempts):
                server.check()
                verdicts.append(judge(target, rate, options.duration))
                console.print(f"{policy}: {line(verdicts[-1])}", highlight=False, soft_wrap=True)
                if verdicts[-1].valid:
                    return True
            return False

        with servers.pinned(options.generator_cores):
            if options.once:
                run(first)
            else:
                highest_valid(run, first, options.precision)
    return verdicts


def line(verdict: Verdict) -> str:
    """One run in one line."""
    word = "[green]VALID[/]" if verdict.valid else "[red]INVALID[/]"
    full = ", [bold]LoadGen's own core was full[/]" if verdict.client_cpu > MAX_GENERATOR_CPU else ""
    return (
        f"{verdict.rate:.0f}/s {word}, p99 {milliseconds(verdict.p99_s)}, late {percent(verdict.late)}, "
        f"refused {percent(verdict.refused)}, correct in time {percent(verdict.effective_accuracy)}{full}"
    )


def table(best: dict[str, Verdict | None]) -> Table:
    """The highest valid run of each policy."""
    result = Table(title="Highest rate that LoadGen calls valid", title_justify="left")
    result.add_column("policy")
    for column in ("rate/s", "p50", "p99", "correct in time"):
        result.add_column(column, justify="right")
    result.add_column("answered by")
    for policy, verdict in best.items():
        if verdict is None:
            result.add_row(policy, "none", "-", "-", "-", "-")
            continue
        mix = [f"{name} {share:.0%}" for name, share in verdict.answers.items() if share >= 0.005]
        cells = (milliseconds(verdict.p50_s), milliseconds(verdict.p99_s), percent(verdict.effective_accuracy))
        result.add_row(policy, f"{verdict.rate:.0f}", *cells, ", ".join(mix))
    return result


def _first_rate(folder: RevisionFolder) -> float:
    """Half of what the most accurate variant answers by the profile; without one, a guess to begin with."""
    profile = load_profile(folder)
    names = [variant.name for variant in folder.manifest.variants if variant.load_by_default]
    if profile is None or not set(names) <= set(profile.variants):
        return 100.0
    family = to_router_family(folder.manifest, profile, names)
    return 0.5 * capacity_per_s(family, read_samples(folder), family.variants[family.ladder[-1]].name)


def _rate(verdict: Verdict) -> float:
    return verdict.rate


def _check(options: argparse.Namespace) -> None:
    for policy in options.policies:
        policy_named(policy)
    for name in ("duration", "precision"):
        if not 0.0 < getattr(options, name) < math.inf:
            raise JudgeError(f"--{name}: expected a positive number, got {getattr(options, name)}")
    if options.attempts < 1:
        raise JudgeError(f"--attempts: expected at least 1, got {options.attempts}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="judge", description="the highest rate that MLCommons LoadGen calls valid")
    add = parser.add_argument
    add("--models", type=Path, default=Path("models"))
    add("--family", default="sentiment")
    add("--policies", nargs="+", default=["casc", "slack-fraction", "fastest"])
    add("--slo-ms", type=float, help="target latency, also the SLO (default: the family's)")
    add("--allowance-ms", type=float, default=2.0, help="of it, for the way there and back (default 2)")
    add("--duration", type=float, default=10.0, help="seconds of a run at least (default 10)")
    add("--rate", type=float, help="where to begin, per second (default: by the profile)")
    add("--once", action="store_true", help="judge that rate alone instead of searching")
    add("--precision", type=float, default=0.05, help="of the highest valid rate (default 0.05)")
    add("--attempts", type=int, default=2, help="runs until a rate counts as invalid (default 2)")
    add("--slots", type=int, default=1, help="batches that the gateway runs at a time (default 1)")
    add("--stages", choices=["auto", "on", "off"], default="auto")
    add("--server-cores", type=int, nargs="*", default=[0], help="none: not pinned (default 0)")
    add("--generator-cores", type=int, nargs="*", default=[1], help="none: not pinned (default 1)")
    add("--out", type=Path, default=Path("loadtests/results"))
    return parser


if __name__ == "__main__":
    main()
