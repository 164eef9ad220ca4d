"""The picture of a search: the hand-made ladder and what was found, with the frontier of each.

Needs matplotlib, like `variants.plots`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from variants.frontier import ParetoPoint, steps
from variants.plots import DOMINATED, LATENCY, ON, Mark, draw_labels, mark_powers, picture
from variants.search.comparison import Comparison


def draw_comparison(compared: Comparison, path: Path, title: str = "") -> None:
    """Draw accuracy (percent, with its standard error) over latency as PNG or SVG. Raises `ValueError` for others."""
    points = [*compared.ladder.values(), *compared.found.values()]
    with picture(path, (7.2, 4.4), title, LATENCY.label, "accuracy (%)") as axes:
        mark_powers(axes, [LATENCY.of(point) for point in points])
        for label, colour, mark, group in (
            ("found", ON, "o", {**compared.ladder, **compared.found}),
            ("hand-made ladder", DOMINATED, "s", compared.ladder),
        ):
            corners = steps((LATENCY.of(point), 100 * point.quality) for point in group.values())
            axes.plot(*zip(*corners, strict=True), color=colour, linewidth=1.3, drawstyle="steps-post", zorder=2)
            own = compared.found if label == "found" else compared.ladder
            axes.errorbar(
                *_columns(own), fmt=mark, color=colour, label=label, markersize=6, elinewidth=1.0, capsize=2.5, zorder=3
            )
        axes.figure.legend(loc="outside lower center", ncols=2, frameon=False)
        draw_labels(axes, [Mark(p.name, LATENCY.of(p), 100 * p.quality, 100 * p.standard_error) for p in points])


def _columns(points: Mapping[str, ParetoPoint]) -> tuple[list[float], list[float], list[float]]:
    """Return what `errorbar` takes: latencies, accuracies and their errors."""
    return (
        [LATENCY.of(point) for point in points.values()],
        [100 * point.quality for point in points.values()],
        [100 * point.standard_error for point in points.values()],
    )
