"""Hundreds of families in the memory of a few dozen: who waits for whom, and what is held (`make bench-cold`).

Copies of one real family are asked for with Zipf's popularity, open loop. Reported are the attainment of the hot ones
(the most popular half of what there is room for), the seconds from a cold request to its answer against those that a
bare load takes here (reading, checking, opening and warming the smallest variant, nothing else running), memory
against the budget, and whether every request has its outcome. The first part of the time (`--warm-up`, a fifth) is not
scored; how much of the budget was used at its end is printed. Simulated, by value and by recency (LRU); with `--live`,
the server itself as well.

Live, lookup tables are weights that are mapped from the files that all copies share: memory holds of them what was
looked up, so less than the budget is used. With `--own-tables` each has blank ones for itself, in memory as of families
that differ; they are read from as many files as there are copies, which takes longer.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import httpx
import numpy as np
from rich.console import Console

from loadtests import oip
from loadtests.cold_scores import Scores, as_table, score_live, score_simulated, without_outcome
from loadtests.cold_simulated import ColdSimulation, Memory
from loadtests.cold_workload import Tables, Visits, family_names, write_copies, zipf_visits
from loadtests.report import write_json
from loadtests.resident import ResidentWatch, bytes_before_models, resident_of, serving_process
from loadtests.samples import Samples, read_samples
from loadtests.sender import Sender
from loadtests.servers import LOG_LINES, gateway, running
from loadtests.workload import Workload
from router.family import Family
from router.placement import Placement
from variants.fingerprint import machine_fingerprint
from variants.preparation import open_preparation
from variants.profiles import load_profile, to_router_family
from variants.repository import Repository, RepositoryError, RevisionFolder
from variants.session import SessionOptions, open_session
from variants.stages import run_stages

SAMPLE_EVERY_S = 0.05
TRIES = 7
MOST_SHOWN = 5
"""Requests without an outcome that are told of one by one."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and print; `--output` writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--family", default="sentiment")
    parser.add_argument("--families", type=int, default=500)
    parser.add_argument("--room", type=int, default=32, help="whole families that the budget has room for")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second")
    parser.add_argument("--zipf", type=float, default=1.1)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--warm-up", type=float, default=0.2, help="share of the seconds that is not scored")
    parser.add_argument("--slo-ms", type=float, default=100.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--live", action="store_true")
    parser.add_argument("--own-tables", action="store_true", help="live, each copy has lookup tables for itself")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(arguments)
    if not 0.0 <= given.warm_up < 1.0:
        parser.error(f"--warm-up {given.warm_up:g}: expected a share in [0, 1)")
    console = Console(width=None if sys.stdout.isatty() else 110)
    repository = Repository(given.models)
    revision = repository.open(given.family)
    family, sizes = described(revision)
    bare_s, p95_s = bare_load_s(revision, list(sizes))
    names = family_names(given.families)
    visits = zipf_visits(given.families, given.zipf, given.rate, given.seconds, np.random.default_rng(given.seed))
    room_bytes = given.room * sum(sizes.values())
    base = min(sizes, key=sizes.__getitem__)
    console.print(f"{machine_fingerprint().description}")
    console.print(f"a bare load of {given.family}/{base}: {1e3 * bare_s[base]:.1f} ms (p95 {1e3 * p95_s[base]:.1f})")
    found: dict[str, Scores] = {}
    slo_s = given.slo_ms / 1e3
    for order in ("value", "recency"):
        memory = Memory(sizes, bare_s, room_bytes)
        rng = np.random.default_rng(given.seed + 1)
        placement = Placement(order=order)
        run = ColdSimulation(family, names, memory, placement, rng).run(visits, names, slo_s)
        found[f"simulated, {order}"] = score_simulated(
            run, visits, given.room // 2, given.warm_up * given.seconds, room_bytes
        )
    if given.live:
        with tempfile.TemporaryDirectory(dir=given.models.resolve().parent) as folder:
            tables: Tables = "own" if given.own_tables else "weights"
            write_copies(repository, given.family, Path(folder), names, tables=tables)
            found["live"] = live(
                Path(folder),
                names,
                visits,
                read_samples(revision),
                room_bytes,
                slo_s,
                given,
                console,
            )
    console.print(as_table(found, bare_s[base]))
    if given.output:
        content = {name: scores._asdict() for name, scores in found.items()}
        write_json(given.output, {"bare_load_s": bare_s, "bare_load_p95_s": p95_s, "runs": content})


def described(revision: RevisionFolder) -> tuple[Family, dict[str, int]]:
    """The family as it is served by default, without stages, and the bytes that each variant takes in memory.

    Raises `RepositoryError` where it has no latency profile of this machine.
    """
    profile = load_profile(revision)
    if profile is None:
        raise RepositoryError(f"{revision.path}: has no latency profile of this machine: serve or profile it first")
    names = [variant.name for variant in revision.manifest.variants if variant.load_by_default]
    family = to_router_family(revision.manifest, profile, names)
    return family, {name: profile.variants[name].memory_bytes for name in names}


def bare_load_s(revision: RevisionFolder, names: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Median and 95th percentile of the seconds that each variant takes from its files to its second batch."""
    taken: dict[str, list[float]] = {name: [] for name in names}
    for name in list(names) * TRIES:
        started_s = time.perf_counter()
        variant = revision.manifest.variant(name)
        revision.broken_files(revision.manifest.files_of(variant))
        preparer = open_preparation(revision)
        samples = revision.samples()
        inputs = {tensor.name: samples[tensor.name][:8] for tensor in revision.manifest.inputs}
        rows = preparer.prepare(inputs).values
        # As it is opened for requests that wait.
        options = SessionOptions(weighed=False)
        session = open_session(revision.file(variant.model_file), options, runtime=variant.runtime)
        for batch in (rows[:1], rows):
            run_stages((session,), preparer.collate(batch))
        taken[name].append(time.perf_counter() - started_s)
    p95_s = {name: float(np.percentile(seconds, 95)) for name, seconds in taken.items()}
    return {name: statistics.median(seconds) for name, seconds in taken.items()}, p95_s


def live(
    root: Path,
    names: Sequence[str],
    visits: Visits,
    samples: Samples,
    room_bytes: int,
    slo_s: float,
    given: argparse.Namespace,
    console: Console,
) -> Scores:
    """The same against a server over sockets."""
    empty_bytes = bytes_before_models(root, {"PARETO_STAGES": "off"})
    budget_bytes = empty_bytes + room_bytes
    started_s = time.monotonic()
    settings = {"PARETO_MEMORY_BUDGET": str(budget_bytes), "PARETO_STAGES": "off", "PARETO_LOG_LEVEL": "warning"}
    with running(gateway(root, settings)) as server:
        console.print(
            f"{len(names)} families registered: ready after {time.monotonic() - started_s:.1f} s, "
            f"{empty_bytes / 1e6:.0f} MB before any model, budget {budget_bytes / 1e6:.0f} MB"
        )
        address = httpx.URL(server.url)
        messages = [oip.infer_message(samples, row % len(samples)) for row in range(64)]
        requests = [
            _request(names[rank], *messages[index % len(messages)], slo_s)
            for index, rank in enumerate(visits.family.tolist())
        ]
        count = len(visits.arrival_s)
        workload = Workload(visits.arrival_s, np.full(count, slo_s), np.zeros(count, np.int64))
        sender = Sender(address.host, address.port or 80, requests)
        held: list[tuple[float, int]] = []
        process = serving_process(server)
        with ResidentWatch(
            partial(resident_of, process), SAMPLE_EVERY_S, lambda size: held.append((time.perf_counter(), size))
        ):
            began_s, _ = sender.run(workload)
        begin_s = given.warm_up * given.seconds
        filled = next((size for at_s, size in reversed(held) if at_s <= began_s + begin_s), 0) / budget_bytes
        most = max((size for _, size in held), default=0) / budget_bytes
        scores = score_live(sender, visits, began_s, slo_s, most, filled, given.room // 2, begin_s)
        for line in without_outcome(sender, visits)[:MOST_SHOWN]:
            console.print(line, markup=False)
        if scores.lost:
            console.print("\n".join(server.said().splitlines()[-LOG_LINES:]), markup=False)
        return scores


def _request(family: str, headers: Mapping[str, str], body: bytes, slo_s: float) -> bytes:
    said = {**headers, oip.SLO_HEADER: oip.slo_text(slo_s), "host": "gateway", "content-length": str(len(body))}
    lines = [f"POST {oip.infer_path(family)} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


if __name__ == "__main__":
    main()
