"""The picture of a family: quality over latency, with the Pareto frontier.

Needs matplotlib and takes half a second to import, so import it where a picture is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from variants.frontier import ParetoPoint, frontier

_ON, _DOMINATED, _TEXT = "#0072B2", "#7A7A7A", "#222222"
"""Blue and grey differ for every kind of colour vision (Okabe and Ito, 2008) and also by filled and hollow."""
_OFFSETS = [(x * r, y * r) for r in (1, 2, 3) for x, y in ((8, -10), (8, 8), (-8, 8), (-8, -10), (0, 12), (0, -14))]
"""Where a label may stand, in points from its mark: below right first, where the frontier does not run."""


def draw_frontier(points: Sequence[ParetoPoint], path: Path, title: str = "") -> None:
    """Draw quality (percent, with one standard error) over latency (milliseconds, logarithmic) as PNG or SVG.

    Raises `ValueError` for another suffix than `.png` or `.svg`, or for no points.
    """
    path = Path(path)
    if path.suffix not in (".png", ".svg"):
        raise ValueError(f"{path}: expected .png or .svg")
    if not points:
        raise ValueError("no points to draw")
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "frontier", "font.size": 9.5}):
        figure = Figure(figsize=(7.2, 4.4), dpi=160, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.set_xscale("log")
        axes.margins(x=0.14, y=0.14)
        _draw_points(axes, points)
        axes.xaxis.set_major_locator(LogLocator(subs=_ticks(points)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("latency of one row, median (ms)")
        axes.set_ylabel("accuracy (%)")
        axes.set_title(title, loc="left", color=_TEXT)
        axes.grid(visible=True, color="#E6E6E6", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        _draw_labels(axes, points)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw_points(axes: Axes, points: Sequence[ParetoPoint]) -> None:
    found = frontier(points)
    named = {point.name: point for point in points}
    best: list[ParetoPoint] = []
    for point in (named[name] for name in found.on):
        # On the frontier for its size alone: it is marked, but the line in this plane does not fall to it.
        if not best or point.quality > best[-1].quality:
            best.append(point)
    axes.plot(
        [point.latency_s * 1e3 for point in best],
        [point.quality * 100 for point in best],
        color=_ON,
        linewidth=1.4,
        drawstyle="steps-post",
        zorder=2,
    )
    for label, colour, fill, group in (
        ("on the frontier of accuracy, latency and size", _ON, _ON, [named[name] for name in found.on]),
        ("dominated", _DOMINATED, "white", [named[name] for name in found.dominated]),
        ("answers depend on the batch", _DOMINATED, _DOMINATED, [point for point in points if not point.competes]),
    ):
        if group:
            axes.errorbar(
                [point.latency_s * 1e3 for point in group],
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


def _draw_labels(axes: Axes, points: Sequence[ParetoPoint]) -> None:
    """Put each name at the first place near its mark where it covers neither marks nor names already there."""
    figure = axes.figure
    figure.canvas.draw()
    marks = [_mark_box(axes, point) for point in points]
    taken = [*marks, *_line_boxes(axes)]
    for point in sorted(points, key=lambda point: point.latency_s):
        placed: list[tuple[float, Annotation]] = []
        for x, y in _OFFSETS:
            label = axes.annotate(
                point.name,
                (point.latency_s * 1e3, point.quality * 100),
                xytext=(x, y),
                textcoords="offset points",
                ha="left" if x > 0 else "right" if x < 0 else "center",
                va="center",
                color=_TEXT,
                fontsize=8.5,
            )
            placed.append((_overlap(label.get_window_extent(), taken), label))
            if placed[-1][0] == 0.0:
                break
        _, best = min(placed, key=lambda candidate: candidate[0])
        for _, label in placed:
            if label is not best:
                label.remove()
        taken.append(best.get_window_extent())


def _ticks(points: Sequence[ParetoPoint]) -> tuple[float, ...]:
    """Return the multiples of powers of ten to mark: more of them where the latencies lie close together."""
    latencies_s = [point.latency_s for point in points]
    return (1.0, 2.0, 5.0) if max(latencies_s) > 8 * min(latencies_s) else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)


def _line_boxes(axes: Axes) -> list[Bbox]:
    """Return the screen boxes, a few pixels wide, of the horizontal and vertical parts of the frontier line."""
    steps = axes.transData.transform(axes.lines[0].get_xydata())
    boxes = []
    for (x0, y0), (x1, y1) in pairwise(steps):
        boxes += [Bbox.from_extents(x0, y0 - 3, x1, y0 + 3), Bbox.from_extents(x1 - 3, y0, x1 + 3, y1)]
    return boxes


def _mark_box(axes: Axes, point: ParetoPoint) -> Bbox:
    x, low = axes.transData.transform((point.latency_s * 1e3, (point.quality - point.standard_error) * 100))
    _, high = axes.transData.transform((point.latency_s * 1e3, (point.quality + point.standard_error) * 100))
    middle = (low + high) / 2
    return Bbox.from_extents(x - 9, min(low, middle - 9), x + 9, max(high, middle + 9))


def _overlap(box: Bbox, others: Sequence[Bbox]) -> float:
    """Return the area in square pixels that a box shares with others."""
    shared = [Bbox.intersection(box, other) for other in others]
    return sum(part.width * part.height for part in shared if part is not None)
