"""Which variants are worth having: the Pareto frontier of quality (up), latency (down) and size (down). Pure.

Point a dominates point b where a is at least as good in all three and better in one (Pareto dominance). Measured
qualities carry noise; a variant whose quality is not clearly above that of a cheaper one stays on the frontier, but
with a note.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ParetoPoint:
    """One variant: quality and its standard error as fractions in [0, 1], latency in seconds, size in bytes.

    One that does not compete is neither on the frontier nor in anybody's way.
    """

    name: str
    quality: float
    latency_s: float
    size_bytes: int
    standard_error: float = 0.0
    competes: bool = True

    def dominates(self, other: ParetoPoint) -> bool:
        """Say whether this point is at least as good as the other in everything and better in something."""
        mine = (-self.quality, self.latency_s, self.size_bytes)
        others = (-other.quality, other.latency_s, other.size_bytes)
        return mine != others and all(a <= b for a, b in zip(mine, others, strict=True))


@dataclass(frozen=True, slots=True)
class Frontier:
    """`on` names the points on the frontier, fastest first; `dominated` the best point that dominates each other one.

    Points that do not compete are in neither. `notes` says of points on the frontier than which faster one they are
    better by less than the noise.
    """

    on: tuple[str, ...]
    dominated: Mapping[str, str]
    notes: Mapping[str, str]


def dominated_by(point: ParetoPoint, points: Iterable[ParetoPoint]) -> ParetoPoint | None:
    """Return the point of highest quality that dominates the given one, the fastest among equals; None if none does."""
    dominating = [other for other in points if other.dominates(point)]
    return min(dominating, key=lambda other: (-other.quality, other.latency_s, other.size_bytes), default=None)


def frontier(points: Sequence[ParetoPoint]) -> Frontier:
    """Divide points into those on the frontier and the dominated. Points equal in everything stand or fall together."""
    on: list[ParetoPoint] = []
    dominated: dict[str, str] = {}
    competing = [point for point in points if point.competes]
    for point in competing:
        dominating = dominated_by(point, competing)
        if dominating is None:
            on.append(point)
        else:
            dominated[point.name] = dominating.name
    on.sort(key=lambda point: (point.latency_s, point.quality, point.name))
    return Frontier(tuple(point.name for point in on), dominated, _notes(on))


def hypervolume(points: Iterable[ParetoPoint], worst_quality: float, worst_latency_s: float) -> float:
    """Return the area (fraction x seconds) that points dominate in quality and latency, bounded by a worst point.

    Points beyond the worst one add nothing. Larger is better; the measure of Zitzler and Thiele, PPSN 1998.
    """
    area, best_quality = 0.0, worst_quality
    for point in sorted(points, key=lambda point: (point.latency_s, -point.quality)):
        if point.latency_s >= worst_latency_s:
            break
        if point.quality > best_quality:
            area += (point.quality - best_quality) * (worst_latency_s - point.latency_s)
            best_quality = point.quality
    return area


def _notes(on: Sequence[ParetoPoint]) -> dict[str, str]:
    notes: dict[str, str] = {}
    for index, point in enumerate(on):
        if index == 0:
            continue
        rival = max(on[:index], key=lambda faster: faster.quality)
        # Of two independent measurements; the same test rows make the true noise of the difference smaller.
        noise = math.hypot(point.standard_error, rival.standard_error)
        if point.quality - rival.quality < noise:
            notes[point.name] = f"within 1 s.e. of {rival.name}"
    return notes
