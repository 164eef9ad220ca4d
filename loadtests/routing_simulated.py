"""Simulated runs of many policies on the suite, side by side on all cores; the same in whatever order they run."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np

from loadtests.machine import Machine
from loadtests.outcomes import Results
from loadtests.routing_runs import Decisions, Key, Run
from loadtests.samples import Samples
from loadtests.scoring import score
from loadtests.simulator import simulate
from loadtests.suite import Trace, Yardsticks, draw
from loadtests.workload import Workload
from router.family import Family
from router.latency import LatencyModel
from router.limits import SERVING, Limits
from router.policies import policy_named
from router.request import Item
from router.view import CascadePolicy, Decision, Policy, PreparedPolicy, View

LATER = ", later"
"""Behind a trace's name: only what arrived after the first seconds."""


@dataclass(frozen=True, slots=True)
class Bench:
    """All that simulated runs have in common; `decision_s` has by policy what its decisions add to every batch.

    With `later_s`, what arrives from that second on is judged a second time, apart.
    """

    family: Family
    samples: Samples
    machine: Machine
    yardsticks: Yardsticks
    duration_s: float
    margin: float | None = None
    limits: Limits = SERVING
    decision_s: dict[str, float] = field(default_factory=dict)
    truth: Family | None = None
    later_s: float | None = None

    def context(self) -> dict[str, Any]:
        """What runs have to have in common to be compared, beside the family."""
        return {
            "duration_s": self.duration_s,
            "simulated_machine": asdict(self.machine),
            "decision_s": self.decision_s,
            "capacity_per_s": {str(name): per_s for name, per_s in self.yardsticks.per_s.items()},
            "slow_row_s": self.yardsticks.slo_s,
        }

    def workload(self, trace: Trace, seed: int) -> Workload:
        """What every policy gets for that trace and seed."""
        return draw(trace, self.yardsticks, self.duration_s, seed, len(self.samples))

    def results(self, policy: str, workload: Workload, seed: int) -> tuple[Results, Decisions]:
        """One simulation. Raises `ValueError` for an unknown policy."""
        timed = stopwatch(policy_named(policy))
        machine = replace(self.machine, batch_s=self.machine.batch_s + self.decision_s.get(policy, 0.0))
        simulation = simulate(
            workload,
            self.family,
            self.samples,
            timed,
            machine,
            np.random.default_rng(seed),
            self.limits,
            self.margin,
            self.truth,
        )
        return simulation.results, timed.decisions(len(workload))

    def run(self, policy: str, trace: Trace, seed: int) -> tuple[Run, ...]:
        """One simulation, judged."""
        workload = self.workload(trace, seed)
        results, decisions = self.results(policy, workload, seed)
        judged = score(workload, self.samples.label, results)
        key = Key(policy, trace.name, seed)
        return (Run.judged(key, judged, self.duration_s, decisions), *self.later(key, workload, results))

    def later(self, key: Key, workload: Workload, results: Results, faults: tuple[str, ...] = ()) -> tuple[Run, ...]:
        """What arrived from `later_s` on as a run of its own, under the trace's name and `LATER`; nothing without."""
        first = len(workload) if self.later_s is None else int(np.searchsorted(workload.arrival_s, self.later_s))
        if first == len(workload) or self.later_s is None:
            return ()
        rest = Workload(workload.arrival_s[first:], workload.slo_s[first:], workload.sample[first:])
        judged = replace(score(rest, self.samples.label, results.since(first)), faults=faults)
        return (Run.judged(key._replace(trace=key.trace + LATER), judged, self.duration_s - self.later_s),)


class Stopwatch:
    """A policy that times another one; what it decides is the other's."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._planned_s: list[float] = []
        self._total_s = 0.0

    def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
        """See `router.view.Policy`."""
        started_s = perf_counter()
        decided = self._policy.decide(state, view, now)
        took_s = perf_counter() - started_s
        self._total_s += took_s
        if decided[1].plan is not None:
            self._planned_s.append(took_s)
        return decided

    def prepare(self, families: Sequence[tuple[Family, LatencyModel]]) -> object:
        """See `router.view.PreparedPolicy`; nothing for a policy that needs none."""
        return self._policy.prepare(families) if isinstance(self._policy, PreparedPolicy) else None

    def adopt(self, state: object, family: str, prepared: object | None) -> object:
        """See `router.view.PreparedPolicy`; a policy that needs none begins anew."""
        return self._policy.adopt(state, family, prepared) if isinstance(self._policy, PreparedPolicy) else None

    def decisions(self, requests: int) -> Decisions:
        """What was measured, for a run of so many requests."""
        median_s, p99_s = np.percentile(self._planned_s or [0.0], [50.0, 99.0]).tolist()
        return Decisions(self._total_s / requests * 1e6, median_s * 1e6, p99_s * 1e6)


class CascadeStopwatch(Stopwatch):
    """The same for a policy that keeps answers."""

    def __init__(self, policy: CascadePolicy) -> None:
        super().__init__(policy)
        self._cascades = policy

    def keeps(self, state: object, family: Family, latency: LatencyModel, item: Item, now: float) -> bool:
        """See `router.view.CascadePolicy`."""
        started_s = perf_counter()
        kept = self._cascades.keeps(state, family, latency, item, now)
        self._total_s += perf_counter() - started_s
        return kept


def stopwatch(policy: Policy) -> Stopwatch:
    """A stopwatch around a policy; it keeps answers if and only if the policy does."""
    return CascadeStopwatch(policy) if isinstance(policy, CascadePolicy) else Stopwatch(policy)


Task = tuple[str, Trace, int]
"""(policy, trace, seed)"""


def run_all(bench: Bench, tasks: Sequence[Task], workers: int, done: Callable[[], None] = lambda: None) -> list[Run]:
    """Runs in the order of the tasks, by so many processes; `done` is called as each one is ready."""
    runs: list[Run] = []
    for run in _mapped(bench, tasks, workers):
        runs.extend(run)
        done()
    return runs


def _mapped(bench: Bench, tasks: Sequence[Task], workers: int) -> Iterator[tuple[Run, ...]]:
    if workers <= 1 or len(tasks) <= 1:
        yield from (bench.run(*task) for task in tasks)
        return
    # Inputs are not needed where nothing is sent, and are most of what would be copied to the processes.
    lean = replace(bench, samples=replace(bench.samples, inputs={}, datatypes={}))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _prepare, (lean,)) as pool:
        yield from pool.map(_run, tasks)


_bench: list[Bench] = []


def _prepare(bench: Bench) -> None:
    _bench[:] = [bench]


def _run(task: Task) -> tuple[Run, ...]:
    return _bench[0].run(*task)
