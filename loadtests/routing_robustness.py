"""What disturbances cost: wrong profiles, a straggling variant, a neighbour that comes and goes, a sudden surge.

Each is compared with the same arrivals undisturbed, over the whole run and over what came after the first seconds, in
which a router can learn. A surge is compared with even arrivals at the rates before and after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from rich.markup import escape
from rich.table import Table

from loadtests.paired import Difference, mean_difference
from loadtests.routing_goals import interval, percent
from loadtests.routing_runs import Run
from loadtests.routing_simulated import LATER, Bench, Task
from loadtests.suite import Trace
from loadtests.traces import Shape
from router.family import Family

SETTLING_S = 5.0
PROFILE_ERROR = 0.3
STRAGGLING = 3.0
"""How many times as long as its profile says the straggling variant takes."""
NEIGHBOUR = 2.0
"""How many times as long everything takes while the neighbour is there: it gets half of the core."""
ROBUST = ("casc", "slack-fraction", "fastest")
"""The policies that are disturbed where none are named."""
ROBUSTNESS_S = 20.0
"""Seconds of a run where no duration is given."""
UNDISTURBED = "undisturbed"
PROFILES, STRAGGLER, HOG, SURGE = "profiles off by 30 %", "one variant 3x slower", "neighbour, 1 s on and off", "surge"
DISTURBANCES = (PROFILES, STRAGGLER, HOG, SURGE)

_STEADY = (
    Trace("poisson", "poisson", 0.7, "middle"),
    Trace("gamma CV2 4", "gamma", 0.7, "middle", shape=Shape(cv2=4.0)),
)
_BEFORE = Trace("before the surge", "poisson", 0.5, "middle")
_AFTER = Trace("after the surge", "poisson", 1.0, "middle")
_SURGE = Trace("surge", "surge", 0.75, "middle", shape=Shape(peak_ratio=2.0))
"""The rate doubles within 0.2 s, halfway: a third of the arrivals come before, two thirds after."""


class Loss(NamedTuple):
    """What a disturbance takes from the effective accuracy of a policy: means with it and without, and the loss."""

    policy: str
    disturbance: str
    without: float
    with_it: float
    loss: Difference
    later: Difference | None
    attainment: float

    def json(self) -> dict[str, Any]:
        """As JSON values."""
        later = None if self.later is None else self.later._asdict()
        return {**self._asdict(), "loss": self.loss._asdict(), "later": later}


def check_duration(duration_s: float) -> None:
    """Raise `ValueError` for runs that end before a router has had its time to learn."""
    if duration_s / 2.0 <= SETTLING_S:
        raise ValueError(f"duration: runs under disturbances take more than {2.0 * SETTLING_S:g} s, got {duration_s:g}")


def profile_factors(names: Sequence[str], seed: int) -> dict[str, float]:
    """By how much each profile is wrong, evenly within `PROFILE_ERROR` around 1."""
    rng = np.random.default_rng([seed, 30])
    return {name: float(rng.uniform(1.0 - PROFILE_ERROR, 1.0 + PROFILE_ERROR)) for name in names}


def straggler_factors(family: Family) -> dict[str, float]:
    """A profile that promises too much of the variant in the middle of the ladder."""
    return {family.variants[family.ladder[len(family.ladder) // 2]].name: 1.0 / STRAGGLING}


def scaled(family: Family, factors: Mapping[str, float]) -> Family:
    """The family with other profiled seconds; variants stay in their order."""
    variants = []
    for variant in family.variants:
        factor, latency = factors.get(variant.name, 1.0), variant.latency
        median_s = tuple(tuple(seconds * factor for seconds in row) for row in latency.median_s)
        tail_s = tuple(tuple(seconds * factor for seconds in row) for row in latency.tail_s)
        variants.append(replace(variant, latency=replace(latency, median_s=median_s, tail_s=tail_s)))
    return replace(family, variants=tuple(variants))


def traces_of(disturbance: str) -> tuple[Trace, ...]:
    """What arrives under a disturbance; `UNDISTURBED` has everything that the others are compared with."""
    if disturbance == UNDISTURBED:
        return (*_STEADY, _BEFORE, _AFTER)
    return (_SURGE,) if disturbance == SURGE else _STEADY


def later_s(disturbance: str, duration_s: float) -> float:
    """When a router has had its time to learn."""
    return SETTLING_S + (duration_s / 2.0 if disturbance == SURGE else 0.0)


def disturbed(bench: Bench, disturbance: str, seed: int) -> Bench:
    """The bench under a disturbance. Profiles are wrong in another way for every seed."""
    bench = replace(bench, later_s=later_s(disturbance, bench.duration_s))
    family = bench.family
    if disturbance == PROFILES:
        factors = profile_factors([variant.name for variant in family.variants], seed)
        return replace(bench, family=scaled(family, factors), truth=family)
    if disturbance == STRAGGLER:
        return replace(bench, family=scaled(family, straggler_factors(family)), truth=family)
    if disturbance == HOG:
        return replace(bench, machine=replace(bench.machine, hog_factor=NEIGHBOUR, hog_period_s=2.0))
    return bench


def simulate_all(
    bench: Bench,
    policies: Sequence[str],
    seeds: Sequence[int],
    run_tasks: Callable[[Bench, Sequence[Task]], list[Run]],
) -> dict[str, list[Run]]:
    """Runs by disturbance; `run_tasks` runs tasks on a bench."""
    runs: dict[str, list[Run]] = {}
    for disturbance in (UNDISTURBED, *DISTURBANCES):
        runs[disturbance] = []
        for seed in seeds:
            tasks = [(policy, trace, seed) for policy in policies for trace in traces_of(disturbance)]
            runs[disturbance] += run_tasks(disturbed(bench, disturbance, seed), tasks)
    return runs


def losses(runs: Mapping[str, Sequence[Run]]) -> list[Loss]:
    """What each disturbance costs each policy that was run under it; invalid runs are left out."""
    found = []
    without = _by_key(runs.get(UNDISTURBED, ()))
    for disturbance in DISTURBANCES:
        under = _by_key(runs.get(disturbance, ()))
        for policy in dict.fromkeys(policy for policy, _, _ in under):
            whole = _strata(policy, disturbance, under, without, "")
            later = _strata(policy, disturbance, under, without, LATER)
            if not whole:
                continue
            pairs = [pair for stratum in whole for pair in stratum]
            names = [trace.name for trace in traces_of(disturbance)]
            attained = [run.attainment for (of, trace, _), run in under.items() if of == policy and trace in names]
            found.append(
                Loss(
                    policy,
                    disturbance,
                    math.fsum(pair[0] for pair in pairs) / len(pairs),
                    math.fsum(pair[1] for pair in pairs) / len(pairs),
                    _difference(whole),
                    _difference(later) if later else None,
                    math.fsum(attained) / len(attained),
                )
            )
    return found


def loss_table(title: str, found: Sequence[Loss]) -> Table:
    """One row for each policy and disturbance; losses in points of effective accuracy with 95 % intervals."""
    table = Table(title=title, title_justify="left")
    for column in ("disturbance", "policy"):
        table.add_column(column)
    for column in ("without", "with it", "loss [95 %]", f"loss after {SETTLING_S:g} s [95 %]", "attainment"):
        table.add_column(column, justify="right")
    for loss in found:
        later = "-" if loss.later is None else escape(interval(loss.later))
        cells = (percent(loss.without), percent(loss.with_it), escape(interval(loss.loss)), later)
        table.add_row(loss.disturbance, loss.policy, *cells, percent(loss.attainment))
    return table


Pairs = list[tuple[float, float]]
"""Effective accuracy without and with a disturbance, for one trace, seed by seed."""


def _strata(
    policy: str,
    disturbance: str,
    under: Mapping[tuple[str, str, int], Run],
    without: Mapping[tuple[str, str, int], Run],
    part: str,
) -> list[Pairs]:
    strata = []
    for trace in traces_of(disturbance):
        pairs: Pairs = []
        for (of, name, seed), run in under.items():
            if (of, name) == (policy, trace.name + part):
                reference = _reference(policy, disturbance, trace, seed, without, part)
                if reference is not None:
                    pairs.append((reference, run.effective_accuracy))
        if pairs:
            strata.append(pairs)
    return strata


def _reference(
    policy: str, disturbance: str, trace: Trace, seed: int, without: Mapping[tuple[str, str, int], Run], part: str
) -> float | None:
    """Undisturbed effective accuracy: for a surge, of both rates by arrivals; for its later part, of the second."""
    if disturbance != SURGE:
        run = without.get((policy, trace.name + part, seed))
        return None if run is None else run.effective_accuracy
    before, after = (without.get((policy, name, seed)) for name in (_BEFORE.name, _AFTER.name))
    if before is None or after is None:
        return None
    if part:
        return after.effective_accuracy
    shares = np.array([_BEFORE.load, _AFTER.load]) / (_BEFORE.load + _AFTER.load)
    return float(shares @ np.array([before.effective_accuracy, after.effective_accuracy]))


def _difference(strata: Sequence[Pairs]) -> Difference:
    return mean_difference([[without - with_it for without, with_it in pairs] for pairs in strata])


def _by_key(runs: Sequence[Run]) -> dict[tuple[str, str, int], Run]:
    return {(run.policy, run.trace, run.seed): run for run in runs if not run.faults}
