"""When requests arrive: seeded arrival processes and recorded traces, as ascending seconds in [0, duration).

All processes have the same mean rate, so that runs differ in shape alone. Bounded variability uses the squared
coefficient of variation of the gaps (CV^2; 1 is Poisson, 4 to 8 is what bursty services show).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Seconds = NDArray[np.float64]

_RAMP_STEPS = 1024
_CLIMB_STEPS = 64
BURSTY_SHARE = 0.5
"""Share of the arrivals of `base_and_bursts` that comes in bursts."""
SPIKES = 4
"""Spikes in the day of `diurnal`, at random moments."""
SPIKE_S = 0.3
"""How long a spike of `diurnal` lasts, seconds; a shorter trace has shorter ones."""
SURGE_S = 0.2
"""How long the rate of `surge` takes to climb, seconds."""


class TraceError(ValueError):
    """A trace cannot be made or read as asked. The message is one line."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How arrivals deviate from an even Poisson stream.

    `cv2` is the squared coefficient of variation of gamma gaps, `peak_ratio` the highest over the lowest rate of the
    processes whose rate changes, `period_s` the length of one on and one off phase together.
    """

    cv2: float = 4.0
    peak_ratio: float = 7.0
    period_s: float = 2.0

    def __post_init__(self) -> None:
        for name in ("cv2", "peak_ratio", "period_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0.0):
                raise TraceError(f"{name}: expected a positive number, got {value}")


Process = Callable[[float, float, Shape, np.random.Generator], Seconds]
"""(mean rate per second, duration in seconds, shape, random source) -> arrival seconds, ascending, float64 [n]."""


def poisson(rate: float, duration_s: float, shape: Shape, rng: np.random.Generator) -> Seconds:
    """Independent arrivals: exponential gaps."""
    return _renewals(lambda count: rng.exponential(1.0 / rate, count), rate, duration_s)


def gamma(rate: float, duration_s: float, shape: Shape, rng: np.random.Generator) -> Seconds:
    """Bursty arrivals: gamma gaps of variability `shape.cv2`."""
    return _renewals(lambda count: rng.gamma(1.0 / shape.cv2, shape.cv2 / rate, count), rate, duration_s)


def on_off(rate: float, duration_s: float, shape: Shape, rng: np.random.Generator) -> Seconds:
    """Poisson arrivals whose rate jumps between two levels, half a period each, low first."""
    low = 2.0 * rate / (1.0 + shape.peak_ratio)
    half_s = shape.period_s / 2.0
    edges_s = np.append(np.arange(0.0, duration_s, half_s), duration_s)
    rates = np.where(np.arange(len(edges_s) - 1) % 2 == 0, low, low * shape.peak_ratio)
    expected = np.concatenate(([0.0], np.cumsum(rates * np.diff(edges_s))))
    return _time_changed(edges_s, expected, rng)


def ramp(rate: float, duration_s: float, shape: Shape, rng: np.random.Generator) -> Seconds:
    """Poisson arrivals whose rate climbs evenly from the lowest to the highest."""
    low = 2.0 * rate / (1.0 + shape.peak_ratio)
    edges_s = np.linspace(0.0, duration_s, _RAMP_STEPS + 1)
    expected = low * edges_s + low * (shape.peak_ratio - 1.0) * edges_s**2 / (2.0 * duration_s)
    return _time_changed(edges_s, expected, rng)


def base_and_bursts(rate: float, duration_s: float, shape: Shape, rng: np.random.Generator) -> Seconds:
    """An even Poisson base and, over it, gamma bursts of variability `shape.cv2`."""
    base = poisson(rate * (1.0 - BURSTY_SHARE), duration_s, shape, rng)
    bursts = gamma(rate * BURSTY_SHARE, duration_s, shape, rng)
    return np.sort(np.concatenate((base, bursts)))


def diurnal(rate: float, duration_s: float, shape: Shape, rng: np.random.Generator) -> Seconds:
    """One day pressed into the duration: a sine from night to noon and back, and a few spikes at half noon's rate."""
    low = 2.0 * rate / (1.0 + shape.peak_ratio)
    edges_s = np.linspace(0.0, duration_s, _RAMP_STEPS + 1)
    middle_s = (edges_s[:-1] + edges_s[1:]) / 2.0
    spike_s = min(SPIKE_S, duration_s / (4.0 * SPIKES))
    starts_s = rng.uniform(0.0, duration_s - spike_s, SPIKES)
    in_spike = ((middle_s >= starts_s[:, None]) & (middle_s < starts_s[:, None] + spike_s)).any(axis=0)
    sine = (1.0 - np.cos(2.0 * np.pi * middle_s / duration_s)) / 2.0
    rates = low * (1.0 + (shape.peak_ratio - 1.0) * (sine + 0.5 * in_spike))
    rates *= rate / rates.mean()
    return _time_changed(edges_s, np.concatenate(([0.0], np.cumsum(rates * np.diff(edges_s)))), rng)


def surge(rate: float, duration_s: float, shape: Shape, rng: np.random.Generator) -> Seconds:
    """Poisson arrivals whose rate climbs, in the middle of the duration and within `SURGE_S`, and stays up."""
    low = 2.0 * rate / (1.0 + shape.peak_ratio)
    climb_s = min(SURGE_S, duration_s)
    steps = np.linspace((duration_s - climb_s) / 2.0, (duration_s + climb_s) / 2.0, _CLIMB_STEPS + 1)
    edges_s = np.concatenate(([0.0], steps, [duration_s]))
    factor = np.interp((edges_s[:-1] + edges_s[1:]) / 2.0, steps, np.linspace(1.0, shape.peak_ratio, len(steps)))
    return _time_changed(edges_s, np.concatenate(([0.0], np.cumsum(low * factor * np.diff(edges_s)))), rng)


PROCESSES: dict[str, Process] = {
    "poisson": poisson,
    "gamma": gamma,
    "onoff": on_off,
    "ramp": ramp,
    "burst": base_and_bursts,
    "diurnal": diurnal,
    "surge": surge,
}


def arrivals(process: str, rate: float, duration_s: float, shape: Shape, rng: np.random.Generator) -> Seconds:
    """Arrival seconds of the process of that name, float64 [n]. Raises `TraceError` naming what is out of range."""
    if process not in PROCESSES:
        raise TraceError(f"process: expected one of {', '.join(PROCESSES)}, got {process!r}")
    for name, value in (("rate", rate), ("duration", duration_s)):
        if not (math.isfinite(value) and value > 0.0):
            raise TraceError(f"{name}: expected a positive number, got {value}")
    return PROCESSES[process](rate, duration_s, shape, rng)


def recorded(path: Path, rate: float | None = None, duration_s: float | None = None) -> Seconds:
    """Arrival seconds of a CSV file, starting at 0 and rescaled to a mean rate where one is given, float64 [n].

    The first column holds seconds or ISO 8601 times, in any order; a heading is skipped. What lies past `duration_s`
    (counted after rescaling) is cut off. Raises `TraceError` naming the file and the line.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.reader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"{path}: cannot be read as CSV: {error}") from error
    stamps: list[float] = []
    for number, row in enumerate(rows, start=1):
        if not row or not row[0].strip():
            continue
        stamp = _seconds(row[0].strip())
        if stamp is not None:
            stamps.append(stamp)
        elif stamps or number > 1:
            raise TraceError(f"{path}: line {number}: expected seconds or an ISO time first, got {row[0][:40]!r}")
    if len(stamps) < 2 or max(stamps) <= min(stamps):
        raise TraceError(f"{path}: expected at least two different times in the first column")
    times_s: Seconds = np.sort(np.array(stamps, dtype=np.float64)) - min(stamps)
    if rate is not None:
        times_s *= (len(times_s) - 1) / times_s[-1] / rate
    return times_s if duration_s is None else times_s[times_s < duration_s]


def _renewals(draw: Callable[[int], Seconds], rate: float, duration_s: float) -> Seconds:
    chunk = int(rate * duration_s * 1.1) + 64
    gaps_s = draw(chunk)
    while gaps_s.sum() < duration_s:
        gaps_s = np.concatenate((gaps_s, draw(chunk)))
    times_s: Seconds = np.cumsum(gaps_s)
    return times_s[times_s < duration_s]


def _time_changed(edges_s: Seconds, expected: Seconds, rng: np.random.Generator) -> Seconds:
    """A Poisson process of changing rate: given its count, arrivals are independent in expected-arrivals time."""
    count = rng.poisson(expected[-1])
    times_s: Seconds = np.interp(np.sort(rng.uniform(0.0, expected[-1], count)), expected, edges_s)
    return times_s[times_s < float(edges_s[-1])]


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        try:
            value = datetime.fromisoformat(text).timestamp()
        except ValueError:
            return None
    return value if math.isfinite(value) else None
