"""The pictures of a family: quality over what it costs, with the Pareto frontier.

Needs matplotlib and takes half a second to import, so import it where a picture is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from variants.frontier import ParetoPoint, frontier, steps

ON, DOMINATED, TEXT = "#0072B2", "#7A7A7A", "#222222"
"""Blue and grey differ for every kind of colour vision (Okabe and Ito, 2008) and also by filled and hollow."""
GRID = "#E6E6E6"
_OFFSETS = [(x * r, y * r) for r in (1, 2, 3) for x, y in ((8, -10), (8, 8), (-8, 8), (-8, -10), (0, 12), (0, -14))]
"""Where a label may stand, in points from its mark: below right first, where the frontier does not run."""


class Mark(NamedTuple):
    """A named mark in the axes' units; `error` is how far its bar reaches up and down."""

    name: str
    x: float
    y: float
    error: float


@dataclass(frozen=True, slots=True)
class CostAxis:
    """What quality is drawn over, on a logarithmic axis in units of its label.

    `of` gives a point's cost, `beyond` how far a thin bar reaches above it (0 for none).
    """

    label: str
    of: Callable[[ParetoPoint], float]
    beyond: Callable[[ParetoPoint], float] = lambda point: 0.0


LATENCY = CostAxis(
    "latency of one row, median (ms)",
    lambda point: point.latency_s * 1e3,
    lambda point: max(0.0, point.tail_s - point.latency_s) * 1e3,
)
SIZE = CostAxis("size of the model file (MB)", lambda point: point.size_bytes / 1e6)
MEMORY = CostAxis("memory that serving it takes, at the most (MB)", lambda point: point.memory_bytes / 1e6)


def draw_frontier(
    points: Sequence[ParetoPoint],
    path: Path,
    title: str = "",
    *,
    axis: CostAxis = LATENCY,
    metric: str = "accuracy",
    inches: tuple[float, float] = (7.2, 4.4),
) -> None:
    """Draw quality (percent, with one standard error) over a cost as PNG or SVG.

    Thin bars lead from the median latency to the 95th percentile, where it is known. Raises `ValueError` for another
    suffix than `.png` or `.svg`, or for no points.
    """
    if not points:
        raise ValueError("no points to draw")
    with picture(path, inches, title, axis.label, f"{metric} (%)") as axes:
        mark_powers(axes, [axis.of(point) for point in points])
        _draw_points(axes, points, axis)
        axes.figure.legend(loc="outside lower center", ncols=3 if inches[0] > 6 else 1, frameon=False)
        marks = [Mark(p.name, axis.of(p), p.quality * 100, p.standard_error * 100) for p in points]
        draw_labels(axes, marks)


@contextmanager
def picture(path: Path, inches: tuple[float, float], title: str, x: str, y: str) -> Iterator[Axes]:
    """Yield logarithmic axes to draw on, then save them. Raises `ValueError` for other suffixes than .png and .svg."""
    path = Path(path)
    if path.suffix not in (".png", ".svg"):
        raise ValueError(f"{path}: expected .png or .svg")
    # The salt keeps the ids of several pictures on one page apart.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.stem, "font.size": 9.5}):
        figure = Figure(figsize=inches, dpi=160, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.set_xscale("log")
        axes.margins(x=0.14, y=0.14)
        yield axes
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.set_title(title, loc="left", color=TEXT, parse_math=False)
        axes.grid(visible=True, color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def mark_powers(axes: Axes, costs: Sequence[float]) -> None:
    """Mark multiples of powers of ten below the axis: more of them where the costs lie close together.

    Before anything is drawn: a single cost has no range that an axis could take from it.
    """
    if max(costs) == min(costs):
        axes.set_xlim(costs[0] / 2, costs[0] * 2)
    subs = (1.0, 2.0, 5.0) if max(costs) > 8 * min(costs) else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _draw_points(axes: Axes, points: Sequence[ParetoPoint], axis: CostAxis) -> None:
    found = frontier(points)
    named = {point.name: point for point in points}
    # On the frontier for another cost: it is marked, but the line in this plane does not fall to it.
    best = steps((axis.of(named[name]), named[name].quality) for name in found.on)
    axes.plot(
        [cost for cost, _ in best],
        [quality * 100 for _, quality in best],
        color=ON,
        linewidth=1.4,
        drawstyle="steps-post",
        zorder=2,
    )
    for label, colour, fill, group in (
        ("on the frontier of accuracy, latency and size", ON, ON, [named[name] for name in found.on]),
        ("dominated", DOMINATED, "white", [named[name] for name in found.dominated]),
        ("answers depend on the batch", DOMINATED, DOMINATED, [point for point in points if not point.competes]),
    ):
        if group:
            # Beside the frontier, not like a part of it.
            axes.hlines(
                [point.quality * 100 for point in group],
                [axis.of(point) for point in group],
                [axis.of(point) + axis.beyond(point) for point in group],
                color=DOMINATED,
                linewidth=0.8,
                alpha=0.6,
                zorder=1,
            )
            axes.errorbar(
                [axis.of(point) for point in group],
                [point.quality * 100 for point in group],
                yerr=[point.standard_error * 100 for point in group],
                fmt="o",
                label=label,
                color=colour,
                markerfacecolor=fill,
                markersize=6.5,
                elinewidth=1.0,
                capsize=2.5,
                zorder=3,
            )


def draw_labels(axes: Axes, marks: Sequence[Mark]) -> None:
    """Put each name at the first place near its mark where it covers neither marks nor names already there.

    The first line of the axes is one that no name should cover either.
    """
    figure = axes.figure
    figure.canvas.draw()
    taken = [*(_mark_box(axes, mark) for mark in marks), *_line_boxes(axes)]
    for mark in sorted(marks, key=lambda mark: mark.x):
        placed: list[tuple[float, Annotation]] = []
        for x, y in _OFFSETS:
            label = axes.annotate(
                mark.name,
                (mark.x, mark.y),
                xytext=(x, y),
                textcoords="offset points",
                ha="left" if x > 0 else "right" if x < 0 else "center",
                va="center",
                color=TEXT,
                fontsize=8.5,
                parse_math=False,
            )
            placed.append((_overlap(label.get_window_extent(), taken), label))
            if placed[-1][0] == 0.0:
                break
        _, best = min(placed, key=lambda candidate: candidate[0])
        for _, label in placed:
            if label is not best:
                label.remove()
        taken.append(best.get_window_extent())


def _line_boxes(axes: Axes) -> list[Bbox]:
    """Return the screen boxes, a few pixels wide, of the horizontal and vertical parts of the frontier line."""
    corners = axes.transData.transform(axes.lines[0].get_xydata())
    boxes = []
    for (x0, y0), (x1, y1) in pairwise(corners):
        boxes += [Bbox.from_extents(x0, y0 - 3, x1, y0 + 3), Bbox.from_extents(x1 - 3, y0, x1 + 3, y1)]
    return boxes


def _mark_box(axes: Axes, mark: Mark) -> Bbox:
    x, low = axes.transData.transform((mark.x, mark.y - mark.error))
    _, high = axes.transData.transform((mark.x, mark.y + mark.error))
    middle = (low + high) / 2
    return Bbox.from_extents(x - 9, min(low, middle - 9), x + 9, max(high, middle + 9))


def _overlap(box: Bbox, others: Sequence[Bbox]) -> float:
    """Return the area in square pixels that a box shares with others."""
    shared = [Bbox.intersection(box, other) for other in others]
    return sum(part.width * part.height for part in shared if part is not None)
