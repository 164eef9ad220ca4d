"""Runs that nobody sent: what a generator would hand in, made up so that it is known what must come of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from loadtests.generator_faults import Sending
from loadtests.harness.cargo import Message, Plan
from loadtests.harness.conductor import Ran
from loadtests.harness.measured import Run
from loadtests.harness.profiles import Profile
from loadtests.harness.record import record
from loadtests.harness.rows import Stock
from loadtests.harness.session import Ended
from loadtests.harness.subject import Member, Names, Subject
from loadtests.harness.target import Served, Target
from loadtests.harness.verdict import Wanted, checks_of, verdict
from loadtests.load import Load
from loadtests.outcomes import Fate, Reply, Results
from loadtests.workload import SloMix

ROWS = 8
VARIANTS = ("small", "large")


def member(name: str = "tiny", slo_ms: str = "50", share: float = 1.0, *, labelled: bool = True) -> Member:
    """A family of eight rows, half of them labelled no, half yes."""
    label = np.arange(ROWS) % 2 if labelled else np.full(ROWS, -2)
    messages = tuple(Message({"content-type": "application/json"}, b"%d" % row) for row in range(ROWS))
    served = Served(name, VARIANTS, {"x": (-1, 4)}, {"x": "FP32"}, "r1", 0.05)
    return Member(served, Stock(name, messages, ("no", "yes"), label, f"{ROWS} rows"), SloMix.parse(slo_ms), share)


def subject(*members: Member, tenants: Names | None = None) -> Subject:
    """Those families, or `tiny` alone."""
    return Subject(Target("http://gateway.test"), members or (member(),), tenants)


def load(rate: float = 100.0, duration_s: float = 10.0) -> Load:
    """Poisson arrivals."""
    return Load(SloMix.parse("50"), duration_s, rate)


def answered(
    of: Subject,
    plan: Plan,
    latency_s: Sequence[float] | float = 0.01,
    *,
    seed: int = 0,
    refused: float = 0.1,
    lag_s: float = 0.0002,
    label: str = "steady",
) -> Run:
    """A run in which a share is refused and the others are answered, nine of ten of them correctly."""
    rng, count = np.random.default_rng(seed), len(plan)
    results, truth = Results.pending(count), of.label[plan.workload.sample]
    latencies = np.broadcast_to(np.asarray(latency_s, np.float64), count) * rng.uniform(0.8, 1.25, count)
    for index in range(count):
        if rng.random() < refused:
            results.take(index, Reply(Fate.REFUSED, reason="deadline_infeasible"), 0.001)
            continue
        right = int(truth[index]) if rng.random() < 0.9 else 1 - int(truth[index])
        reply = Reply(Fate.ANSWERED, right, VARIANTS[int(rng.random() < 0.3)], 0.005, 0.004)
        results.take(index, reply, float(latencies[index]))
    sending = Sending(np.full(count, lag_s), 0.1, 7)
    generators = ({"requests": count, "lag_p99_s": lag_s, "cpu_share": 0.1, "started": 0.0},)
    return Run(label, of, Ran(plan, results, sending, generators, 0.0, cut=False), seed, 100.0)


def recorded(
    of: Subject, runs: Sequence[Run], profile: str = "steady", details: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The record of a load test with those runs, as it is read from its file."""
    judged = verdict(checks_of(runs[-1].score, Wanted(0.5, 0.99, 0.02)), runs[-1].faults(0.5))
    values = record(
        profile=profile,
        subject=of,
        about={"name": "pareto-gateway", "version": "1"},
        options=Profile(profile, load(), 1).values(),
        runs=runs,
        ended=Ended(judged, ("a line <b>of</b> its own",), details or {}),
        workers=0,
        seed=1,
    )
    read: dict[str, Any] = orjson.loads(orjson.dumps(values))
    return read


class Silent:
    """Shows nothing; keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[Mapping[str, Any]] = []
        self.said: list[str] = []

    def begin(self, label: str, plan: Plan) -> None:
        """Nothing."""

    def counts(self, counts: Mapping[str, Any]) -> None:
        """Keep them."""
        self.told.append(counts)

    def end(self, run: Run | None) -> None:
        """Nothing."""

    def say(self, line: str) -> None:
        """Keep it."""
        self.said.append(line)
