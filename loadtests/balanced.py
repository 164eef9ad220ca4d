"""Several replicas behind a balancer, in virtual time: a request goes to the one with the fewest in flight.

That is `balance leastconn`, as deploy/haproxy has it. A request is in flight from when it reaches a replica until this
has ended it: what both ways take is the same for all replicas. Of several with the fewest, the one that was given
nothing for the longest time gets it, so that idle replicas take turns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from loadtests.machine import Machine
from loadtests.outcomes import Results
from loadtests.samples import Samples
from loadtests.simulator import Replica, outbound, replica, requests_of, results_of
from loadtests.workload import Workload
from router.family import Family
from router.limits import Limits
from router.request import Request
from router.view import Policy


def simulate_fleet(
    workload: Workload,
    family: Family,
    samples: Samples,
    policies: Sequence[Policy],
    machine: Machine,
    rngs: Sequence[np.random.Generator],
    limits: Limits | None = None,
    margin: float | None = None,
) -> Results:
    """Run the workload to its end on as many replicas as there are policies and random sources, one of each for each.

    The same arguments and the same state of `rngs` give the same results; with one replica, those of `simulate`.
    """
    outbound_s = outbound(machine, len(workload), rngs[0])
    replicas = [
        replica(workload, family, samples, policy, machine, rng, limits, margin)
        for policy, rng in zip(policies, rngs, strict=True)
    ]
    hand_out(requests_of(workload, family, samples, machine), replicas)
    return results_of(workload, samples, (record for one in replicas for record in one.records), outbound_s)


def hand_out(requests: Sequence[Request], replicas: Sequence[Replica]) -> None:
    """Offer each request, in order of arrival, to one of the replicas, and run them until the last one has ended."""
    given = [0] * len(replicas)
    for number, request in enumerate(requests, start=1):
        for one in replicas:
            one.run(request.arrival_s)
        chosen = min(range(len(replicas)), key=lambda index: (replicas[index].in_flight, given[index]))
        replicas[chosen].offer(request)
        given[chosen] = number
    for one in replicas:
        one.run()
