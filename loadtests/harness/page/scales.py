"""Scales of charts: where a value stands, and which values are marked. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """Values from `low` to `high`, evenly or (`log`) by their logarithm; `marks` are (value, text)."""

    low: float
    high: float
    marks: tuple[tuple[float, str], ...]
    log: bool = False

    def share(self, value: float) -> float:
        """How far along the scale a value stands, cut to [0, 1]."""
        if self.log:
            low, high, value = math.log(self.low), math.log(self.high), math.log(max(value, 1e-300))
        else:
            low, high = self.low, self.high
        return min(1.0, max(0.0, (value - low) / ((high - low) or 1.0)))


def linear(low: float, high: float, most_marks: int = 5, unit: str = "") -> Scale:
    """An even scale that begins at `low` and ends with or beyond `high`, marked at round numbers."""
    high = high if high > low else low + 1.0
    step = _round_step((high - low) / most_marks)
    first = math.ceil(low / step - 1e-9)
    last = math.ceil(high / step - 1e-9)
    marks = tuple((number * step, f"{number * step:.10g}{unit}") for number in range(first, last + 1))
    return Scale(low, last * step, marks)


def shares(low: float) -> Scale:
    """A scale of shares up to 1 in percent, which begins at or below `low`."""
    for begin in (0.99, 0.95, 0.9, 0.8, 0.5, 0.0):
        if low >= begin:
            break
    step = (1.0 - begin) / 5.0
    marks = tuple((begin + number * step, f"{100.0 * (begin + number * step):.4g} %") for number in range(6))
    return Scale(begin, 1.0, marks)


def milliseconds(values_s: Iterable[float]) -> Scale:
    """A logarithmic scale of seconds, marked in milliseconds or seconds at 1, 2 and 5 of each power of ten."""
    known = [value for value in values_s if value > 0.0 and math.isfinite(value)]
    low, high = (min(known), max(known)) if known else (1e-3, 1e-2)
    steps = [mantissa * 10.0**power for power in range(-7, 4) for mantissa in (1.0, 2.0, 5.0)]
    begin = max((step for step in steps if step <= low * 1.0001), default=steps[0])
    end = min((step for step in steps if step >= high * 0.9999), default=steps[-1])
    end = end if end > begin else begin * 10.0
    inside = [step for step in steps if begin * 0.9999 <= step <= end * 1.0001]
    if len(inside) > 7:
        inside = [step for step in inside if math.isclose(math.log10(step), round(math.log10(step)), abs_tol=1e-9)]
    return Scale(begin, end, tuple((step, seconds_text(step)) for step in inside), log=True)


def nines(highest: float) -> Scale:
    """A scale of the shares that are left above a percentile, so that each nine takes the same room.

    `share` takes 1 - percentile; the scale runs from the median (0.5) to `highest` (0.001 is the 99.9th).
    """
    texts = {0.5: "50", 0.1: "90", 0.01: "99", 0.001: "99.9", 1e-4: "99.99", 1e-5: "99.999"}
    marks = tuple((rest, f"{text} %") for rest, text in texts.items() if rest >= highest * 0.999)
    return Scale(0.5, highest, marks, log=True)


def seconds_text(seconds: float) -> str:
    """A time with its unit."""
    if seconds >= 1.0:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} µs"


def highest(series: Iterable[Sequence[float | None]]) -> float:
    """The highest of several lines; 0.0 where they have no values."""
    return max((value for line in series for value in line if value is not None and math.isfinite(value)), default=0.0)


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(round_ * power for round_ in (1.0, 2.0, 2.5, 5.0, 10.0) if round_ * power >= step * 0.999)
