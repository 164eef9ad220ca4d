"""A load: what arrives and what it wants, before it is drawn. `pareto simulate` and `pareto loadtest` take the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from loadtests.traces import Seconds, Shape, TraceError, arrivals, recorded
from loadtests.workload import SloMix, Workload

MOST_REQUESTS = 2_000_000
"""A longer load is refused: it would take gigabytes, and minutes to simulate."""


@dataclass(frozen=True, slots=True)
class Load:
    """What arrives: a seeded process, or a recording where `trace` names one.

    `rate` is the mean of arrivals per second; None leaves a recording at its own.
    """

    mix: SloMix
    duration_s: float
    rate: float | None = None
    process: str = "poisson"
    shape: Shape = field(default_factory=Shape)
    trace: Path | None = None

    def draw(self, samples: int, seed: int) -> Workload:
        """The workload of that seed over so many samples. Raises `TraceError` naming what is out of range."""
        rng = np.random.default_rng(seed)
        arrival_s, called = self.arrive(rng)
        return Workload.draw(arrival_s, self.mix, samples, rng, f"{called}, SLO {self.mix.said}")

    def arrive(self, rng: np.random.Generator) -> tuple[Seconds, str]:
        """Arrival seconds alone, float64 [n], and what to call them. Raises `TraceError` as `draw` does."""
        span_s = self.duration_s
        if self.trace is not None:
            arrival_s = recorded(self.trace, self.rate, self.duration_s)
            kind = self.trace.name
            if len(arrival_s) > 1:
                # A recording may end before; it lasts one mean gap longer than until its last arrival.
                span_s = min(span_s, float(arrival_s[-1]) * len(arrival_s) / (len(arrival_s) - 1))
        elif (self.rate or 0.0) * self.duration_s > MOST_REQUESTS:
            raise TraceError(f"load: more than {MOST_REQUESTS:,} requests; lower the rate or the duration")
        else:
            arrival_s = arrivals(self.process, self.rate or 0.0, self.duration_s, self.shape, rng)
            kind = self.process
        called = f"{kind}, {len(arrival_s) / span_s:.0f}/s for {span_s:.3g} s"
        if self.trace is None and f"{self.rate:.0f}" != f"{len(arrival_s) / span_s:.0f}":
            # Or it would seem that another rate was simulated, or sent, than was asked for.
            called += f" (random, {self.rate:g}/s in the mean)"
        return arrival_s, called
