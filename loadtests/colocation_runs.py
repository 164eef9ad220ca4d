"""The runs of the colocation benchmark: which mixes, which ways to share a machine, and what came of each.

Ways to share: ours; the same without fair shares; each family on its own with a static share of the machine (in
proportion to what it is expected to ask for, which nobody knows so well in practice); and EDF with MaxBatch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np

from loadtests.colocation_families import Arrivals, Burst, Member, Mix, draw, members, shares
from loadtests.colocation_score import Shared
from loadtests.colocation_simulator import Answered, apart, together
from loadtests.machine import Machine
from loadtests.routing_simulated import stopwatch
from loadtests.traces import Shape
from router.policies import policy_named
from router.policies.casc import Casc
from router.view import Policy

OURS, PLAIN, STATIC, EDF = "casc", "casc, no shares", "static shares", "EDF, MaxBatch"
CONTENDERS = (OURS, PLAIN, STATIC, EDF)
MACHINE = Machine(slots=2, noise=0.12, batch_s=0.0003)
ZIPF, BURSTY, NOISY, OVERLOAD = "Zipf 0.6", "bursty 0.7", "noisy neighbour", "overload 1.5"
BELOW = (ZIPF, BURSTY)
"""Mixes in which there is time for everybody."""


class Task(NamedTuple):
    """One run: so many families, a mix, a way to share, a seed, and seconds of arrivals."""

    families: int
    mix: str
    contender: str
    seed: int
    duration_s: float


class Measured(NamedTuple):
    """Shares in [0, 1] of all requests, and over families; decisions in microseconds of CPU time.

    `neighbours` is how much the attainment of all families but the one that bursts changed by its burst.
    """

    attainment: float
    effective: float
    mean: float
    least: float
    jain: float
    decision_us: float
    decision_p99_us: float
    neighbours: float | None = None


class Outcome(NamedTuple):
    """What came of a run; one that is not `valid` is not counted."""

    task: Task
    requests: int
    measured: Measured
    valid: bool = True


def mix_named(name: str, families: int, duration_s: float) -> Mix:
    """A mix of the benchmark. In the noisy one, the family that asks most asks ten times as much for a while."""
    if name == ZIPF:
        return Mix(name, 0.6, zipf=1.0)
    if name == BURSTY:
        return Mix(name, 0.7, zipf=1.0, process="burst", shape=Shape(cv2=8.0))
    if name == OVERLOAD:
        return Mix(name, 1.5)
    loudest = int(np.argmax(shares(Mix(name, 0.6, zipf=1.0), families)))
    return Mix(name, 0.6, zipf=1.0, burst=Burst(loudest, 10.0, duration_s / 4.0, duration_s / 2.0))


def run(task: Task, machine: Machine = MACHINE) -> Outcome:
    """Simulate one run. Raises `ValueError` for a contender that is not known."""
    families = members(task.families)
    mix = mix_named(task.mix, task.families, task.duration_s)
    asked = draw(mix, families, machine.slots, task.duration_s, task.seed)
    answered, decisions = _answered(task, mix, asked, families, machine)
    shared = Shared.of(asked.member, answered.met, answered.right, len(families))
    neighbours = None
    if mix.burst is not None:
        quiet = draw(mix.quiet, families, machine.slots, task.duration_s, task.seed)
        before, _ = _answered(task, mix, quiet, families, machine)
        loud = mix.burst.member
        neighbours = float(answered.met[asked.member != loud].mean() - before.met[quiet.member != loud].mean())
    overall = shared.overall
    measured = Measured(*overall, shared.mean, shared.least, shared.jain, *decisions, neighbours)
    return Outcome(task, len(asked), measured)


def run_all(
    tasks: Sequence[Task], workers: int, done: Callable[[], None] = lambda: None, machine: Machine = MACHINE
) -> list[Outcome]:
    """The runs in the order of the tasks, by so many processes; `done` is called as each one is ready."""
    found: list[Outcome] = []
    if workers <= 1:
        for task in tasks:
            found.append(run(task, machine))
            done()
        return found
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        for outcome in pool.map(partial(run, machine=machine), tasks):
            found.append(outcome)
            done()
    return found


def _answered(
    task: Task, mix: Mix, asked: Arrivals, families: tuple[Member, ...], machine: Machine
) -> tuple[Answered, tuple[float, float]]:
    """The answers, and the median and the 99th percentile of a decision (not of static shares: there are many)."""
    if task.contender not in CONTENDERS:
        raise ValueError(f"contender {task.contender!r}: expected one of {', '.join(CONTENDERS)}")
    policy: Policy = policy_named("maxbatch") if task.contender == EDF else Casc()
    if task.contender == STATIC:
        part = shares(replace(mix, burst=None), len(families)).tolist()
        return apart(asked, families, policy, machine, task.seed, part), (float("nan"), float("nan"))
    timed = stopwatch(policy)
    answered = together(asked, families, timed, machine, task.seed, fair=task.contender == OURS)
    decisions = timed.decisions(len(asked))
    return answered, (decisions.median_us, decisions.p99_us)
