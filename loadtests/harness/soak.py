"""The profile `soak`: a long even load; latency and memory must not drift, and nothing may be lost."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loadtests.harness.histogram import Histogram, quantile_of
from loadtests.harness.measured import Run
from loadtests.harness.session import Ended, Session
from loadtests.harness.uncertainty import Interval, difference
from loadtests.harness.verdict import Check, Wanted, verdict
from loadtests.harness.verdict import checks_of as verdict_checks
from loadtests.load import Load

DURATION_S = 600.0
LOOKS = 120
"""How often memory is read in all, but at most once in `LOOK_EVERY_S`."""
LOOK_EVERY_S = 2.0
_DRIFTS: Mapping[str, float] = {"p50": 0.5, "p99": 0.99}
_WARMING = 0.1
"""The share of the time in which memory may still grow as it likes."""


@dataclass(frozen=True, slots=True)
class SoakOptions:
    """How much percentiles of latency, and memory, may rise from the first third to the last, as shares.

    `told` has the names of those that somebody has asked for: where they cannot be judged they are missed.
    """

    drift: float = 0.2
    growth: float = 0.1
    told: tuple[str, ...] = ()


class Memory:
    """Resident memory of the gateway, read now and then: seconds since the start, and bytes."""

    def __init__(self, session: Session, duration_s: float) -> None:
        self._target = session.subject.target
        self._every_s = max(LOOK_EVERY_S, duration_s / LOOKS)
        self._began_s = self._due_s = time.monotonic()
        self.readings: list[tuple[float, float]] = []

    def look(self) -> None:
        """Read it where it is time to."""
        now_s = time.monotonic()
        if now_s < self._due_s:
            return
        self._due_s = now_s + self._every_s
        read = self._target.resident_bytes()
        if read is not None:
            self.readings.append((now_s - self._began_s, read))


def soak(session: Session, load: Load, wanted: Wanted, options: SoakOptions, seed: int) -> Ended:
    """Send the load of that seed, and watch. Raises `TraceError` where it cannot be drawn."""
    memory = Memory(session, load.duration_s)
    run = session.send(session.subject.draw(load, seed), "soak", seed, load.rate, memory.look)
    if run is None:
        return Ended(verdict([], [], interrupted=True))
    checks = checks_of(run, memory.readings, wanted, options)
    details = {
        "drift": {name: list(drift(run, share)) for name, share in _DRIFTS.items()},
        "growth": growth_of(memory.readings),
        "memory": [list(reading) for reading in memory.readings],
    }
    faults = run.faults(wanted.attainment)
    return Ended(verdict(checks, faults, interrupted=session.interrupted), details=details)


def checks_of(run: Run, readings: Sequence[tuple[float, float]], wanted: Wanted, options: SoakOptions) -> list[Check]:
    """Hold a run, and the readings of memory (seconds, bytes), against thresholds and options."""
    found = [
        *verdict_checks(run.score, wanted, run.accuracy_rests_on),
        *(drift_check(name, drift(run, share), options.drift) for name, share in _DRIFTS.items()),
        growth_check(growth_of(readings), options.growth),
    ]
    return [dataclasses.replace(check, passed=False) if _is_owed(check, options) else check for check in found]


def _is_owed(check: Check, options: SoakOptions) -> bool:
    """Somebody has asked for it, and it could not be judged."""
    return check.passed is None and check.what.partition(" ")[0] in options.told


def drift(run: Run, share: float) -> Interval:
    """How much higher a quantile of latency is in the last third than in the first, as a share of the first."""
    return drift_of(run.blocks(), share)


def drift_of(blocks: Sequence[Mapping[str, Any]], share: float) -> Interval:
    """The same, of a run's blocks."""
    third = len(blocks) // 3
    first, last = (
        [Histogram.read(block["latency"]) for block in part] for part in (blocks[:third], blocks[len(blocks) - third :])
    )
    base_s = Histogram.merged(first).quantile_s(share)
    found = (
        difference(quantile_of(first, share), quantile_of(last, share), (third, third), paired=False) if third else None
    )
    return (
        Interval(*(value / base_s for value in found)) if found else Interval(float("nan"), float("nan"), float("nan"))
    )


def drift_check(name: str, found: Interval, most: float) -> Check:
    """Latency has drifted where that is sure: where even the lower bound is more than is allowed."""
    wanted = f"at most {most:+.0%}"
    if not np.isfinite(found.value) or not np.isfinite(found.low):
        return Check(f"drift of {name}", None, "too few requests to tell", wanted)
    text = f"{found.value:+.1%} (95 %: {found.low:+.1%} to {found.high:+.1%})"
    return Check(f"drift of {name}", found.low <= most, text, wanted)


def growth_of(readings: Sequence[tuple[float, float]]) -> float | None:
    """How much more memory there is in the last third than in the first, after warming up, as a share of the first."""
    if not readings:
        return None
    warm = [read for at_s, read in readings if at_s >= _WARMING * readings[-1][0]]
    third = len(warm) // 3
    if not third:
        return None
    return statistics.median(warm[-third:]) / statistics.median(warm[:third]) - 1.0


def growth_check(growth: float | None, most: float) -> Check:
    """Memory has not grown by more than is allowed; not judged where it cannot be read."""
    wanted = f"at most {most:+.0%}"
    if growth is None:
        return Check("growth of memory", None, "not told by /metrics often enough", wanted)
    return Check("growth of memory", growth <= most, f"{growth:+.1%}", wanted)
