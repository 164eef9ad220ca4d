"""The colocation benchmark on real gateways: copies of built families under other names, with other SLOs.

Ways to share: one gateway for all families, as it is, without fair shares, or with EDF and MaxBatch; and one gateway
for each family (up to `MOST_GATEWAYS`), which share the cores as the system's scheduler lets them, so that idle
families lend theirs: more than static shares, and what independent deployments on one machine are.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from loadtests import servers
from loadtests.cold_workload import write_copies
from loadtests.colocation_families import SLOS_S, Arrivals, Member, draw
from loadtests.colocation_runs import CONTENDERS, EDF, OURS, STATIC, Measured, Outcome, Task, mix_named
from loadtests.colocation_score import Shared
from loadtests.compare import profiled_family
from loadtests.generator_faults import MAX_LAG_P99_S
from loadtests.outcomes import Fate
from loadtests.routing_output import progress
from loadtests.samples import read_samples
from loadtests.sender import Sender, go_first, prepared, read_answers
from loadtests.workload import Workload
from variants.repository import Repository

LEAST_REQUESTS = 3.0
"""Variants that answer a long row in less than so many requests take beside the model (`--request-ms`) are left out:
bursts of ten times as many requests would overrun the core of the event loop, whatever the router does."""
MOST_GATEWAYS = 16
TRIES = 3
"""A workload whose requests leave late says nothing of the gateway: it is sent again."""


class Sent(NamedTuple):
    """What came of a workload: whether each request was answered in time, and rightly, bool [n]; how late it left."""

    met: NDArray[np.bool_]
    right: NDArray[np.bool_]
    lag_p99_s: float


@contextmanager
def copies(models: Path, sources: Sequence[str], count: int) -> Iterator[Path]:
    """A repository with so many families: copies of the sources in turn, hard-linked where the disk can."""
    source = Repository(models)
    with tempfile.TemporaryDirectory(prefix=".colocation-", dir=models.parent) as folder:
        root = Path(folder)
        for number in range(count):
            family = sources[number % len(sources)]
            write_copies(source, family, root, [f"{family}-{number:02}"])
        yield root


def live(options: argparse.Namespace, mixes: Sequence[str], console: Console) -> list[Outcome]:
    """All runs. Raises what the command tells in one line."""
    outcomes = []
    for count in options.families:
        with copies(options.models, options.sources, count) as root:
            families = _members(root, options.server_cores, options.request_ms / 1e3)
            for contender in CONTENDERS:
                if contender == STATIC and count > MOST_GATEWAYS:
                    console.print(f"not run: {count} gateways, more than {MOST_GATEWAYS}")
                    continue
                with _gateways(root, families, contender, options) as ports, progress(console) as bar:
                    tasks = [
                        Task(count, mix, contender, seed, options.duration)
                        for mix in mixes
                        for seed in range(1, options.seeds + 1)
                    ]
                    turns = bar.track(tasks, description=f"{count} families, {contender}")
                    outcomes += [_outcome(options, task, families, ports, bar.console) for task in turns]
    return outcomes


def _outcome(
    options: argparse.Namespace, task: Task, families: tuple[Member, ...], ports: Sequence[int], console: Console
) -> Outcome:
    """One workload, sent; where a family bursts in it, also without the burst. Sent again where it left late."""
    for _ in range(TRIES):
        outcome, lag_s = _tried(options, task, families, ports)
        if lag_s <= MAX_LAG_P99_S:
            return outcome
        late = f"requests left {lag_s * 1e3:.1f} ms late (99th percentile)"
        console.print(f"[bold white on red] INVALID RUN [/] {task.contender}, {task.mix}, seed {task.seed}: {late}")
    return outcome._replace(valid=False)


def _tried(
    options: argparse.Namespace, task: Task, families: tuple[Member, ...], ports: Sequence[int]
) -> tuple[Outcome, float]:
    mix = mix_named(task.mix, len(families), task.duration_s)
    mix = replace(mix, load=mix.load * options.load)
    asked = draw(mix, families, 1, task.duration_s, task.seed)
    sent = _send(asked, families, ports, options.generator_cores)
    neighbours, lag_s = None, sent.lag_p99_s
    if mix.burst is not None:
        quiet = draw(mix.quiet, families, 1, task.duration_s, task.seed)
        before = _send(quiet, families, ports, options.generator_cores)
        loud, lag_s = mix.burst.member, max(lag_s, before.lag_p99_s)
        neighbours = float(sent.met[asked.member != loud].mean() - before.met[quiet.member != loud].mean())
    shared = Shared.of(asked.member, sent.met, sent.right, len(families))
    fared = (shared.mean, shared.least, shared.jain)
    return Outcome(task, len(asked), Measured(*shared.overall, *fared, math.nan, math.nan, neighbours)), lag_s


@contextmanager
def _gateways(
    root: Path, families: Sequence[Member], contender: str, options: argparse.Namespace
) -> Iterator[list[int]]:
    """The port of each family's gateway, for as long as the block runs."""
    own = {
        member.family.name: {
            "slo_ms": member.slo_s * 1e3,
            "load": [variant.name for variant in member.family.variants],
            "stages": "off",
        }
        for member in families
    }
    settings = {
        "PARETO_CONFIG": "",
        "PARETO_SLOTS": "1",
        "PARETO_SLOT_CORES": ",".join(map(str, options.slot_cores)),
        "PARETO_LOG_LEVEL": "error",
        "PARETO_POLICY": "maxbatch" if contender == EDF else "casc",
        "PARETO_FAIR_SHARES": "true" if contender == OURS else "false",
        "PARETO_FAMILIES": json.dumps(own),
    }
    with ExitStack() as stack:
        if contender != STATIC:
            server = stack.enter_context(servers.running(servers.gateway(root, settings), options.server_cores))
            yield [server.port] * len(families)
            return
        ports = []
        for member in families:
            name = member.family.name
            alone = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=root.parent)))
            write_copies(Repository(root), name, alone, [name])
            single = {**settings, "PARETO_FAMILIES": json.dumps({name: own[name]})}
            server = stack.enter_context(servers.running(servers.gateway(alone, single), options.server_cores))
            ports.append(server.port)
        yield ports


def _members(root: Path, cores: Sequence[int], request_s: float) -> tuple[Member, ...]:
    """The families of a repository, with the variants that are loaded by default and not too quick.

    No family is asked more often than requests of so many seconds allow. Raises `ValueError` for a family without such
    variants.
    """
    repository, least_s = Repository(root), LEAST_REQUESTS * request_s
    found = []
    for number, name in enumerate(repository.families()):
        folder = repository.open(name)
        loaded = [variant.name for variant in folder.manifest.variants if variant.load_by_default]
        family = profiled_family(folder, loaded, cores, staged=False)
        slow = [variant.name for variant in family.variants if variant.latency.median_s[-1][0] >= least_s]
        if not slow:
            raise ValueError(
                f"{name}: each of its variants answers a row in less than {least_s * 1e3:g} ms, which is "
                f"{LEAST_REQUESTS:g} times --request-ms: name a slower family, or a smaller --request-ms"
            )
        family = profiled_family(folder, slow, cores, staged=False)
        found.append(Member(family, read_samples(folder), SLOS_S[number % len(SLOS_S)], request_s))
    return tuple(found)


def _send(asked: Arrivals, families: Sequence[Member], ports: Sequence[int], cores: Sequence[int]) -> Sent:
    """Send a workload from a process of its own."""
    with servers.pinned(cores), ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_sent, asked, families, ports).result()


def _sent(asked: Arrivals, families: Sequence[Member], ports: Sequence[int]) -> Sent:
    requests: list[bytes] = [b""] * len(asked)
    parts = []
    for number, member in enumerate(families):
        index = np.flatnonzero(asked.member == number)
        if not len(index):
            continue
        part = Workload(asked.arrival_s[index], np.full(len(index), member.slo_s), asked.sample[index])
        parts.append((index, member, part))
        host = f"127.0.0.1:{ports[number]}"
        for place, request in zip(index.tolist(), prepared(part, member.samples, host), strict=True):
            requests[place] = request
    slo_s = np.array([member.slo_s for member in families])[asked.member]
    workload = Workload(asked.arrival_s, slo_s, asked.sample)
    places = [("127.0.0.1", ports[member]) for member in asked.member.tolist()]
    sender = Sender("127.0.0.1", ports[0], requests, places)
    go_first()
    started_s, sending = sender.run(workload)
    met, right = np.zeros(len(asked), dtype=np.bool_), np.zeros(len(asked), dtype=np.bool_)
    for index, member, part in parts:
        results = read_answers([sender.seen[place] for place in index.tolist()], started_s, part, member.samples)
        met[index] = (results.fate == Fate.ANSWERED) & (results.latency_s <= part.slo_s)
        right[index] = results.label == member.samples.label[part.sample]
    return Sent(met, right, float(np.percentile(sending.lag_s, 99.0)))
