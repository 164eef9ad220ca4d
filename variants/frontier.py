"""Which variants are worth having: the Pareto frontier of quality (up), latency (down) and size (down). Pure.

Point a dominates point b where a is at least as good in all three and better in one (Pareto dominance). Measured
qualities carry noise; a variant whose quality is not clearly above that of a cheaper one stays on the frontier, but
with a note: a difference that the rows give no evidence of is called a tie.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from variants.paired import Comparison

Compare = Callable[[str, str], Comparison]
"""Compares two variants by name on the same rows."""


@dataclass(frozen=True, slots=True)
class ParetoPoint:
    """One variant: quality and its standard error as fractions in [0, 1], latency in seconds, sizes in bytes.

    `tail_s` is the 95th percentile of the latency and `memory_bytes` the most that serving took; 0 where not known,
    and no part of what dominates what. One that does not compete is neither on the frontier nor in anybody's way.
    """

    name: str
    quality: float
    latency_s: float
    size_bytes: int
    standard_error: float = 0.0
    competes: bool = True
    tail_s: float = 0.0
    memory_bytes: int = 0

    def dominates(self, other: ParetoPoint) -> bool:
        """Say whether this point is at least as good as the other in everything and better in something."""
        mine = (-self.quality, self.latency_s, self.size_bytes)
        others = (-other.quality, other.latency_s, other.size_bytes)
        return mine != others and all(a <= b for a, b in zip(mine, others, strict=True))


@dataclass(frozen=True, slots=True)
class Frontier:
    """`on` names the points on the frontier, fastest first; `dominated` the best point that dominates each other one.

    Points that do not compete are in neither. `notes` says of points on the frontier than which faster one they are
    better by less than the noise. `ties` has pairs of all points, in the order given, between which the rows give no
    evidence of a difference; empty where they were not compared row by row.
    """

    on: tuple[str, ...]
    dominated: Mapping[str, str]
    notes: Mapping[str, str]
    ties: tuple[tuple[str, str], ...] = ()

    def tied_with(self, name: str) -> tuple[str, ...]:
        """Return the names of the points that one is tied with."""
        return tuple(second if first == name else first for first, second in self.ties if name in (first, second))


def dominated_by(point: ParetoPoint, points: Iterable[ParetoPoint]) -> ParetoPoint | None:
    """Return the point of highest quality that dominates the given one, the fastest among equals; None if none does."""
    dominating = [other for other in points if other.dominates(point)]
    return min(dominating, key=lambda other: (-other.quality, other.latency_s, other.size_bytes), default=None)


def frontier(points: Sequence[ParetoPoint], compare: Compare | None = None) -> Frontier:
    """Divide points into those on the frontier and the dominated. Points equal in everything stand or fall together.

    With `compare`, differences are judged row by row; else by the two standard errors, which hides small ones.
    """
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
    pairs = combinations([point.name for point in points], 2) if compare else ()
    ties = tuple((first, second) for first, second in pairs if compare and compare(first, second).tied)
    return Frontier(tuple(point.name for point in on), dominated, _notes(on, compare), ties)


def hypervolume(points: Iterable[ParetoPoint], worst_quality: float, worst_latency_s: float) -> float:
    """Return the area (fraction x seconds) that points dominate in quality and latency, bounded by a worst point.

    Points beyond the worst one add nothing. Larger is better; the measure of Zitzler and Thiele, PPSN 1998.
    """
    return dominated_area([(point.latency_s, point.quality) for point in points], worst_quality, worst_latency_s)


def dominated_area(points: Iterable[tuple[float, float]], worst_quality: float, worst_cost: float) -> float:
    """Return the hypervolume of points (cost, quality), exactly, in the cost's unit."""
    area, best_quality = 0.0, worst_quality
    for cost, quality in steps(points):
        if cost >= worst_cost:
            break
        if quality > best_quality:
            area += (quality - best_quality) * (worst_cost - cost)
            best_quality = quality
    return area


def steps(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return those points (cost, quality) that none beats in the two, cheapest first: the corners of a frontier."""
    corners: list[tuple[float, float]] = []
    for cost, quality in sorted(points, key=lambda point: (point[0], -point[1])):
        if not corners or quality > corners[-1][1]:
            corners.append((cost, quality))
    return corners


def _notes(on: Sequence[ParetoPoint], compare: Compare | None) -> dict[str, str]:
    notes: dict[str, str] = {}
    for index, point in enumerate(on):
        if index == 0:
            continue
        rival = max(on[:index], key=lambda faster: faster.quality)
        if compare is not None:
            if compare(point.name, rival.name).tied:
                notes[point.name] = f"tied with {rival.name} (p = {compare(point.name, rival.name).p_value:.2f})"
            continue
        # Of two independent measurements; the same test rows make the true noise of the difference smaller.
        noise = math.hypot(point.standard_error, rival.standard_error)
        if point.quality - rival.quality < noise:
            notes[point.name] = f"within 1 s.e. of {rival.name}"
    return notes
