"""Loads on a fleet, and what became of them: behind HAProxy, on some of its replicas, or on one of them directly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loadtests.calibration import Pinned, calibrate, capacity_per_s
from loadtests.fleet import Fleet
from loadtests.fleet_load import Generator, poisson
from loadtests.generator_faults import Sending, generator_faults
from loadtests.machine import Machine
from loadtests.outcomes import Results
from loadtests.samples import Samples
from loadtests.scoring import Score, score
from loadtests.sender import Place
from loadtests.workload import Workload
from router.family import Family

CALIBRATION_LOAD = 0.9
"""Of what a slot answers one by one: near what is predicted, as a request that comes alone costs the loop more."""
BALANCER, FIRST = 0, 1
"""Where requests go."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What became of one load (`rate` requests a second) on all replicas behind HAProxy, and of each replica's part of
    it on one of them, directly, while the others are idle.
    """

    rate: float
    balanced: Score
    alone: Score


class Trial:
    """A fleet with one family, and a generator. Each replica has a `share` of a processor.

    Each load takes `seconds`, those of a calibration half as long.

    `faults` has what makes figures worthless.
    """

    def __init__(
        self,
        running: Fleet,
        generator: Generator,
        family: Family,
        samples: Samples,
        *,
        share: float,
        seconds: float,
        slo_s: float,
    ) -> None:
        self.faults: list[str] = []
        self.slo_s = slo_s
        self.count = len(running.replicas)
        self._fleet = running
        self._generator = generator
        self._family = family
        self.samples = samples
        self._share = share
        self._seconds = seconds
        front, one = running.front.server, running.replicas[0].server
        self._places: list[Place] = [(front.address, front.port), (one.address, one.port)]

    def calibrate(self) -> Machine:
        """The machine that one replica is, from direct load pinned to variants."""
        runs = []
        ladder = self._family.ladder
        for rung in dict.fromkeys((ladder[-1], ladder[len(ladder) // 2], ladder[0])):
            variant = self._family.variants[rung].name
            rate = CALIBRATION_LOAD * self._share * capacity_per_s(self._family, self.samples, variant)
            # What is late is answered all the same: this is about how long batches take.
            workload = poisson(rate, self._seconds / 2.0, 1.0, self.samples, 0)
            server = self._fleet.replicas[0].server
            loop_s = server.loop_s()
            results, sending = self._send(workload, FIRST, variant)
            loop_s = server.loop_s() - loop_s
            live = score(workload, self.samples.label, results, sending)
            ways_s = results.latency_s - results.total_s
            runs.append(Pinned(variant, workload, live, loop_s, ways_s[np.isfinite(ways_s)]))
        return calibrate(runs, self._family, self.samples, slots=1)

    def turn(self, rate: float, number: int) -> Turn:
        """One load, behind HAProxy first or second."""
        whole = poisson(rate, self._seconds, self.slo_s, self.samples, 100 + number)
        # Of a Poisson process, each replica's part is one, too.
        parts = np.random.default_rng([number, 1]).integers(0, self.count, len(whole))
        loads = [(whole, BALANCER), (whole.of(parts == 0), FIRST)]
        scores = {}
        for workload, to in loads if number % 2 == 0 else loads[::-1]:
            results, sending = self._send(workload, to)
            scores[to] = score(workload, self.samples.label, results, sending)
        return Turn(rate, scores[BALANCER], scores[FIRST])

    def attained(self, replicas: int, rates: Sequence[float], seed: int) -> list[float]:
        """The share in time at each rate of the first so many replicas behind HAProxy, while the others are idle."""
        self._fleet.front.take_out({replica.name for replica in self._fleet.replicas[replicas:]})
        try:
            found = []
            for rate in rates:
                workload = poisson(rate, self._seconds, self.slo_s, self.samples, seed)
                results, sending = self._send(workload, BALANCER)
                found.append(score(workload, self.samples.label, results, sending).attainment)
        finally:
            self._fleet.front.take_out(set())
        return found

    def _send(self, workload: Workload, to: int, variant: str | None = None) -> tuple[Results, Sending]:
        everywhere = np.full(len(workload), to, dtype=np.int64)
        results, sending = self._generator.send(workload, self._places, everywhere, variant)
        self.faults += generator_faults(results, sending)
        return results, sending
