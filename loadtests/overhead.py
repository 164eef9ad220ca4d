"""What the gateway costs: requests per second against the same model served without one (`make bench-overhead`).

All servers are started once, pinned to one core, and frozen but for the one that is measured; the generator has
another core. Systems take turns within each round, and ratios are taken within a round, so that a machine that gets
slower or faster meanwhile treats them alike.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loadtests import servers
from loadtests.closedloop import GeneratorError, Throughput, generator_name, measure
from loadtests.contenders import YARDSTICK, Contender, check_answers, contenders
from loadtests.report import write_json
from loadtests.samples import read_samples
from variants.fingerprint import machine_fingerprint
from variants.repository import Repository, RepositoryError

WARM_UP_S = 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """One contender at one number of connections: medians over rounds, and its ratio to the yardstick within rounds."""

    name: str
    connections: int
    per_s: float
    ratio: float
    ratio_min: float
    ratio_max: float
    p50_s: float
    p99_s: float
    max_s: float
    worst_max_s: float
    rounds: tuple[Throughput, ...]


def compare(connections: int, rounds: Sequence[dict[str, Throughput]]) -> list[Comparison]:
    """Summarise rounds, each of which has one run of every contender."""
    summary = []
    for name in rounds[0]:
        runs = [of_round[name] for of_round in rounds]
        ratios = [of_round[name].per_s / of_round[YARDSTICK].per_s for of_round in rounds]
        summary.append(
            Comparison(
                name=name,
                connections=connections,
                per_s=statistics.median(run.per_s for run in runs),
                ratio=statistics.median(ratios),
                ratio_min=min(ratios),
                ratio_max=max(ratios),
                p50_s=statistics.median(run.p50_s for run in runs),
                p99_s=statistics.median(run.p99_s for run in runs),
                max_s=statistics.median(run.max_s for run in runs),
                worst_max_s=max(run.max_s for run in runs),
                rounds=tuple(runs),
            )
        )
    return summary


def table(comparisons: Sequence[Comparison]) -> Table:
    """The comparison for a terminal."""
    result = Table(title="Requests per second, JSON, kept-alive connections", title_justify="left")
    for column in ("connections", "system", "requests/s", f"x {YARDSTICK} (min-max)", "p50", "p99", "max (worst)"):
        result.add_column(column, justify="left" if column == "system" else "right")
    for one in comparisons:
        result.add_row(*_cells(one))
    return result


def markdown(comparisons: Sequence[Comparison]) -> str:
    """The same for a README."""
    head = f"| connections | system | requests/s | x {YARDSTICK} (min-max) | p50 | p99 | max (worst) |\n"
    rows = ("| " + " | ".join(_cells(one)) + " |\n" for one in comparisons)
    return head + "|---:|---|---:|---:|---:|---:|---:|\n" + "".join(rows)


def _cells(one: Comparison) -> tuple[str, ...]:
    return (
        str(one.connections),
        one.name,
        f"{one.per_s:,.0f}",
        f"{one.ratio:.2f} ({one.ratio_min:.2f}-{one.ratio_max:.2f})",
        *(f"{seconds * 1e3:.2f} ms" for seconds in (one.p50_s, one.p99_s)),
        f"{one.max_s * 1e3:.1f} ({one.worst_max_s * 1e3:.1f}) ms",
    )


def run_round(
    systems: Sequence[Contender],
    connections: int,
    seconds: int,
    cores: Sequence[int],
    generator: str,
    answers: dict[str, Counter[str]],
) -> dict[str, Throughput]:
    """Measure each system once, all other servers frozen meanwhile; adds to `answers` which variants answered."""
    results: dict[str, Throughput] = {}
    for system in systems:
        system.server.thaw()
        body, before = system.body(0), system.answers()
        measure(system.server.url + system.path, body, connections, WARM_UP_S, cores, generator)
        results[system.name] = measure(system.server.url + system.path, body, connections, seconds, cores, generator)
        answers.setdefault(system.name, Counter()).update(system.answers() - before)
        system.server.freeze()
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write `overhead.json` and `overhead.md`. Ends with one line where that cannot be done."""
    options = _parser().parse_args(arguments)
    console = Console()
    try:
        _run(options, console)
    except (GeneratorError, RepositoryError, servers.ServerError, OSError, ValueError) as error:
        console.print(f"[red]bench-overhead:[/] {escape(str(error))}")
        sys.exit(1)


def _run(options: argparse.Namespace, console: Console) -> None:
    samples = read_samples(Repository(options.models).open(options.family))
    generator = options.generator or generator_name()
    comparisons: list[Comparison] = []
    answered_by: dict[str, dict[str, dict[str, int]]] = {}
    with ExitStack() as stack:
        systems, variant = contenders(stack, options.models, samples, options.server_cores)
        check_answers(systems, samples, variant)
        resident_bytes = {system.server.name: system.server.resident_bytes() for system in systems}
        for system in systems:
            system.server.freeze()
        pinning = f"servers on cores {options.server_cores}, generator {generator} on {options.generator_cores}"
        console.print(f"{options.family}/{variant}, {pinning}, {options.rounds} rounds of {options.seconds:g} s")
        for connections in options.connections:
            rounds: list[dict[str, Throughput]] = []
            answers: dict[str, Counter[str]] = {}
            for number in range(options.rounds):
                rounds.append(
                    run_round(systems, connections, options.seconds, options.generator_cores, generator, answers)
                )
                rates = ", ".join(f"{name} {run.per_s:,.0f}/s" for name, run in rounds[-1].items())
                console.print(f"  {connections} connections, round {number + 1}: {rates}")
            comparisons += compare(connections, rounds)
            answered_by[str(connections)] = {name: dict(counts) for name, counts in answers.items() if counts}
            console.print(f"  {connections} connections, rows by variant: {answered_by[str(connections)]}")
    console.print(table(comparisons))
    context: dict[str, Any] = {
        "machine": machine_fingerprint().description,
        "family": options.family,
        "variant": variant,
        "generator": generator,
        "server_cores": options.server_cores,
        "generator_cores": options.generator_cores,
        "seconds": options.seconds,
        "resident_bytes": resident_bytes,
        "rows_by_variant": answered_by,
        "comparisons": [asdict(one) for one in comparisons],
    }
    write_json(options.out / "overhead.json", context)
    (options.out / "overhead.md").write_text(markdown(comparisons), encoding="utf-8")
    console.print(f"written: {options.out / 'overhead.json'}, {options.out / 'overhead.md'}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench-overhead", description="gateway against bare servers of one model")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--family", default="digits", help="a tensor family (default digits)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of each run (default 4)")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--generator", choices=["wrk", "built-in"], help="default: wrk where it is installed")
    parser.add_argument("--server-cores", type=int, nargs="*", default=[0], help="none: not pinned (default 0)")
    parser.add_argument("--generator-cores", type=int, nargs="*", default=[1], help="none: not pinned (default 1)")
    parser.add_argument("--out", type=Path, default=Path("loadtests/results"))
    return parser


if __name__ == "__main__":
    main()
