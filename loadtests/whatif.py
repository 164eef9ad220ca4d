"""What if: how a load would be answered by a family, a policy and so many replicas, in virtual time.

The scheduler that serves makes the decisions; the load is drawn or recorded; rows, labels, answers and confidences are
those of the family's samples. Each replica has a scheduler and a queue of its own; the balancer in front of them sends
a request to the one with the fewest in flight (`loadtests/balanced.py`). A replica's event loop takes requests in one
after the other, so it is also what bounds a replica of very quick models.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import orjson

from loadtests.balanced import simulate_fleet
from loadtests.calibration import TYPICAL, profiled_noise
from loadtests.machine import Machine
from loadtests.outcomes import Fate, Results
from loadtests.samples import Samples
from loadtests.scoring import Score, score
from loadtests.traces import TraceError
from loadtests.workload import Workload
from router.family import Family
from router.limits import Limits
from router.policies import policy_named

MOST_REPLICAS = 64
"""Where the search for the fewest replicas ends."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What serves on every replica; `default_slo_s` is that of requests that name none."""

    family: Family
    samples: Samples
    policy: str
    machine: Machine
    margin: float | None
    limits: Limits
    default_slo_s: float = 0.1


class Spread(NamedTuple):
    """Mean, least and most of one measure over the seeds."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """What so many replicas make of the load. Shares in [0, 1] are of all arrivals, but for `accuracy`, `escalated`
    and `answers` (by variant), which are of the answered; seconds run from when a request was sent to its answer.

    `refused` were shed at once, `late` answered after their SLO. `first` has the results of the first seed.
    """

    replicas: int
    attainment: Spread
    effective_accuracy: Spread
    accuracy: Spread
    p50_s: Spread
    p99_s: Spread
    refused: Spread
    late: Spread
    escalated: Spread
    answers: dict[str, float]
    first: Results = field(repr=False)

    def values(self) -> dict[str, Any]:
        """Everything but single requests, for JSON."""
        names = (column.name for column in dataclasses.fields(self) if column.name != "first")
        return {
            name: value._asdict() if isinstance(value, Spread) else value
            for name, value in ((name, getattr(self, name)) for name in names)
        }


def usual_machine(family: Family, slots: int) -> Machine:
    """A machine as noisy as its profile, on which HTTP costs what it usually does."""
    return replace(TYPICAL, slots=slots, noise=profiled_noise(family))


def read_machine(path: Path, slots: int) -> Machine:
    """The machine that a benchmark calibrated (`simulated_machine` in its results), but with so many slots.

    Raises `TraceError` naming the file.
    """
    try:
        found = orjson.loads(path.read_bytes())
        values = found.get("context", found)["simulated_machine"]
        known = {**values, "ways_s": tuple(values.get("ways_s", ())), "devices": (), "slots": slots}
        return Machine(**known)
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise TraceError(f"{path}: cannot be read as results with a simulated_machine: {error}") from None


def predict(setup: Setup, workloads: Sequence[Workload], replicas: int, done: Callable[[], None]) -> Forecast:
    """Simulate every workload on so many replicas, each workload's seed being its place; `done` after each."""
    scores: list[Score] = []
    results: list[Results] = []
    for seed, workload in enumerate(workloads):
        results.append(_served(setup, workload, replicas, seed))
        scores.append(score(workload, setup.samples.label, results[-1]))
        done()
    names = [variant.name for variant in setup.family.variants]
    answered = {name: fmean(one.answers.get(name, 0.0) for one in scores) for name in names}
    return Forecast(
        replicas=replicas,
        attainment=_spread([one.attainment for one in scores]),
        effective_accuracy=_spread([one.effective_accuracy for one in scores]),
        accuracy=_spread([one.accuracy for one in scores]),
        p50_s=_spread([one.p50_s for one in scores]),
        p99_s=_spread([one.p99_s for one in scores]),
        refused=_spread([one.fates[Fate.REFUSED] + one.fates[Fate.EXPIRED] for one in scores]),
        late=_spread([one.fates[Fate.ANSWERED] - one.attainment for one in scores]),
        escalated=_spread([one.escalated for one in scores]),
        answers={name: share for name, share in answered.items() if share > 0.0},
        first=results[0],
    )


def fewest(
    setup: Setup, workloads: Sequence[Workload], attainment: float, done: Callable[[], None], most: int = MOST_REPLICAS
) -> list[Forecast]:
    """Forecasts by ascending number of replicas, among them the least number whose mean attainment reaches the target.

    Doubles the number until it is enough, then halves the gap: more replicas are taken to serve no worse. Where not
    even `most` are enough, they are the last.
    """
    tried: dict[int, Forecast] = {}

    def enough(replicas: int) -> bool:
        tried[replicas] = predict(setup, workloads, replicas, done)
        return tried[replicas].attainment.mean >= attainment

    too_few, count = 0, 1
    while not enough(count):
        too_few, count = count, min(2 * count, most)
        if too_few == most:
            break
    while count - too_few > 1:
        middle = (too_few + count) // 2
        if enough(middle):
            count = middle
        else:
            too_few = middle
    return [tried[replicas] for replicas in sorted(tried)]


def _served(setup: Setup, workload: Workload, replicas: int, seed: int) -> Results:
    """The results of the whole workload, in its order."""
    policies = [policy_named(setup.policy) for _ in range(replicas)]
    rngs = [np.random.default_rng([seed, replica]) for replica in range(replicas)]
    return simulate_fleet(
        workload, setup.family, setup.samples, policies, setup.machine, rngs, setup.limits, setup.margin
    )


def _spread(values: Sequence[float]) -> Spread:
    return Spread(fmean(values), min(values), max(values))
