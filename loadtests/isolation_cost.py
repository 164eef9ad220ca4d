"""What executors in processes cost against threads (`make bench-isolation`): throughput, tail, processor time, memory.

Two gateways serve the same model of about 2 ms on one core; the generator has another one. They take turns, each frozen
while the other one is measured, and the order changes from round to round; ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import orjson
import psutil
from rich.console import Console
from rich.table import Table

from loadtests import servers
from loadtests.closedloop import GeneratorError, measure
from loadtests.handmade import breaking_model, write_family
from loadtests.report import write_json
from variants.fingerprint import machine_fingerprint
from variants.repository import Repository

WARM_UP_S = 1
GOAL = 0.15
"""Of throughput, at most."""
KINDS = ("threads", "processes")
FAMILY = "model"
BODY = orjson.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1.0, 0.0, 0.0, 0.0]}]})


class Turn(NamedTuple):
    """What one gateway did in its turn: answers per second, their 99th percentile, processor seconds for each."""

    per_s: float
    p99_s: float
    cpu_s: float


def proportional_bytes(server: servers.Server) -> int:
    """Memory of all processes of a server, in which what they share counts once."""
    found = 0
    for process in server.tree():
        try:
            found += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return found


def _turn(server: servers.Server, connections: int, options: argparse.Namespace) -> Turn:
    server.thaw()
    ask = (f"{server.url}/v2/models/{FAMILY}/infer", BODY, connections)
    measure(*ask, WARM_UP_S, options.generator_cores)
    before_s = server.processor_s()
    ran = measure(*ask, options.seconds, options.generator_cores)
    used_s = server.processor_s() - before_s
    server.freeze()
    return Turn(ran.per_s, ran.p99_s, used_s / ran.requests)


def _measured(options: argparse.Namespace, models: Path) -> dict[str, object]:
    usual = {
        "PARETO_FAMILIES": orjson.dumps({FAMILY: {"when_late": "serve", "slo_ms": 1000}}).decode(),
        "PARETO_SLOTS": str(options.slots),
        "PARETO_INLINE_BELOW_S": "0",
    }
    rounds: dict[int, list[Mapping[str, Turn]]] = {connections: [] for connections in options.connections}
    with ExitStack() as stack:
        running = {}
        for kind in KINDS:
            command = servers.gateway(models, {**usual, "PARETO_ISOLATION": kind})
            running[kind] = stack.enter_context(servers.running(command, options.server_cores))
            running[kind].freeze()
        for number in range(options.rounds):
            order = KINDS if number % 2 == 0 else KINDS[::-1]
            for connections, turns in rounds.items():
                turns.append({kind: _turn(running[kind], connections, options) for kind in order})
        memory = {kind: proportional_bytes(server) for kind, server in running.items()}
        for server in running.values():
            server.thaw()
    return {"memory_bytes": memory, "rounds": [_summary(c, turns) for c, turns in rounds.items()]}


def _summary(connections: int, turns: Sequence[Mapping[str, Turn]]) -> dict[str, object]:
    ratios = [turn["processes"].per_s / turn["threads"].per_s for turn in turns]
    found: dict[str, object] = {"connections": connections, "ratio": statistics.median(ratios)}
    found |= {"least_ratio": min(ratios), "greatest_ratio": max(ratios)}
    for kind in KINDS:
        columns = zip(*(turn[kind] for turn in turns), strict=True)
        found[kind] = Turn(*(statistics.median(column) for column in columns))._asdict()
    return found


def _show(console: Console, found: Mapping[str, object]) -> bool:
    table = Table(title="Executors in processes against threads, medians", title_justify="left")
    for column in ("connections", "", "answers/s", "p99 ms", "processor ms", "throughput, of threads'"):
        table.add_column(column, justify="right")
    kept = True
    rounds = found["rounds"]
    assert isinstance(rounds, list), "as `_measured` makes it"
    for one in rounds:
        ratio = f"{one['ratio']:.2f} ({one['least_ratio']:.2f}-{one['greatest_ratio']:.2f})"
        kept = kept and one["ratio"] >= 1.0 - GOAL
        for kind in KINDS:
            turn = Turn(**one[kind])
            cells = (f"{turn.per_s:.0f}", f"{turn.p99_s * 1e3:.2f}", f"{turn.cpu_s * 1e3:.2f}")
            table.add_row(str(one["connections"]), kind, *cells, ratio if kind == "processes" else "")
    console.print(table)
    memory = found["memory_bytes"]
    assert isinstance(memory, dict), "as `_measured` makes it"
    console.print("Memory: " + ", ".join(f"{kind} {memory[kind] / 1e6:.0f} MB" for kind in KINDS))
    console.print(f"Goal: at most {GOAL:.0%} of throughput: {'kept' if kept else 'missed'}")
    return kept


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write `isolation-cost.json`."""
    parser = argparse.ArgumentParser(prog="bench-isolation", description="what executors in processes cost")
    parser.add_argument("--products", type=int, default=8, help="matrix products of the model: 8 take about 2 ms")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--server-cores", type=int, nargs="+", default=[0])
    parser.add_argument("--generator-cores", type=int, nargs="+", default=[1])
    parser.add_argument("--out", type=Path, default=Path("loadtests/results"))
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        repository = Repository(Path(folder))
        write_family(repository, FAMILY, {"only": (breaking_model(options.products), 0.9)})
        try:
            found = _measured(options, repository.root)
        except (GeneratorError, servers.ServerError) as error:
            sys.exit(f"bench-isolation: {error}")
    kept = _show(Console(), found)
    write_json(options.out / "isolation-cost.json", {"machine": machine_fingerprint().description, **found})
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
