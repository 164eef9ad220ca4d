"""What the router that is imported decides: run as a program, it prints where that is, and a hash of what came out.

Its policies are copied and pickled first, as whoever simulates in several processes does.
"""

from __future__ import annotations

import copy
import hashlib
import pickle
from dataclasses import replace

import numpy as np

from loadtests.breaking import Breaks
from loadtests.machine import Machine
from loadtests.simulator import simulate
from loadtests.synthetic import synthetic
from loadtests.traces import Shape, arrivals
from loadtests.workload import SloMix, Workload
from router import scheduler
from router.limits import Limits
from router.policies import policy_named
from router.words import Reason

SECONDS = 3.0
RATES = (40.0, 300.0, 1500.0)
"""Rows a second: little to do, busy, and far too much."""


def decided(policy: str, rate: float, slots: int, ahead: float, *, staged: bool) -> str:
    """Every record and every dispatch of one simulation, in which a variant breaks for a while."""
    rng = np.random.default_rng(7)
    family, samples = synthetic()
    if staged:
        names = tuple(variant.name for variant in family.variants)
        variants = [replace(variant, stages=names[: at + 1]) for at, variant in enumerate(family.variants)]
        family = replace(family, variants=tuple(variants))
    family, rule = pickle.loads(pickle.dumps((family, copy.deepcopy(policy_named(policy)))))
    arrival_s = arrivals("gamma", rate, SECONDS, Shape(cv2=4.0), rng)
    workload = Workload.draw(arrival_s, SloMix.parse("20:0.3,60:0.5,300:0.2"), len(samples), rng)
    machine = Machine(slots=slots, noise=0.1, slowdown=1.2)
    breaks = Breaks({family.variants[2].name: (Reason.EXECUTOR_ERROR, 1.0, 1.5)})
    run = simulate(workload, family, samples, rule, machine, rng, Limits(ahead=ahead), breaks=breaks)
    return repr((run.records, run.dispatches))


if __name__ == "__main__":
    digest = hashlib.sha256()
    for policy in ("casc", "fluid", "slack-fraction"):
        for rate in RATES:
            for slots, ahead, staged in ((1, 0.7, True), (2, 0.0, False)):
                digest.update(decided(policy, rate, slots, ahead, staged=staged).encode())
    print(scheduler.__file__, digest.hexdigest())  # noqa: T201 - a program's output
