"""What a strategy achieved: the points before and after it, and how much of the plane each set dominates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from variants.frontier import ParetoPoint, hypervolume


@dataclass(frozen=True, slots=True)
class StrategyReport:
    """`before` are the networks there were, `after` those and what the strategy made of them; `steps` tells how.

    `points` are by role: "original", "shrunk", "improved" and so on.
    """

    strategy: str
    steps: tuple[str, ...]
    points: Mapping[str, ParetoPoint]
    before: tuple[str, ...]

    def hypervolumes(self) -> tuple[float, float]:
        """Return the hypervolume (fraction x seconds) of the points before, and of all points, from one worst point.

        The worst point is a hundredth below the lowest quality of all, at a tenth above the slowest latency of all.
        """
        worst_quality = min(point.quality for point in self.points.values()) - 0.01
        worst_latency_s = 1.1 * max(point.latency_s for point in self.points.values())
        before = [self.points[role] for role in self.before]
        return (
            hypervolume(before, worst_quality, worst_latency_s),
            hypervolume(self.points.values(), worst_quality, worst_latency_s),
        )

    def gained(self, role: str, over: str) -> float:
        """Return how much more accurate one point is than another, as a fraction (0.01 is a point)."""
        return self.points[role].quality - self.points[over].quality

    def faster(self, role: str, than: str) -> float:
        """Return how many times less latency one point has than another."""
        return self.points[than].latency_s / self.points[role].latency_s


def table(reports: Sequence[StrategyReport]) -> str:
    """Return the points of all reports as lines of a table, with their hypervolumes below them."""
    lines = []
    for report in reports:
        before, after = report.hypervolumes()
        lines.append(f"{report.strategy}: {'; '.join(report.steps)}")
        lines += [
            f"  {role:<12} {100 * point.quality:6.2f} % +- {100 * point.standard_error:.2f}"
            f" {1e3 * point.latency_s:8.4f} ms {point.size_bytes / 1e3:9.1f} kB"
            for role, point in report.points.items()
        ]
        lines.append(f"  hypervolume  {1e6 * before:.2f} -> {1e6 * after:.2f} (fraction x microseconds)")
    return "\n".join(lines)
