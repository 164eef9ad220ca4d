"""The pictures of the report, as SVG that takes its colours from the page, so that they fit light and dark."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from variants.frontier import ParetoPoint
from variants.plots import (
    DOMINATED,
    GRID,
    LATENCY,
    MEMORY,
    ON,
    SIZE,
    TEXT,
    CostAxis,
    Mark,
    draw_frontier,
    draw_labels,
    mark_powers,
    picture,
)
from variants.report.cascades import CascadeCurve

INCHES = (5.0, 4.3)
"""As narrow as letters stay legible when the page of a phone shows the whole."""

PLANES: Mapping[str, CostAxis] = {"latency": LATENCY, "size": SIZE, "memory": MEMORY}

_UNUSED_IDS = "figure|axes|patch|line2d|matplotlib|xtick|ytick|text|legend|LineCollection"
_CASCADE = "#D55E00"
_COLOURS = {ON: "--on", DOMINATED: "--dominated", TEXT: "--text", GRID: "--grid", _CASCADE: "--cascade"} | {
    "#000000": "--text",
    "#ffffff": "--paper",
    "white": "--paper",
}


def frontier_pictures(points: Sequence[ParetoPoint], metric: str) -> dict[str, str]:
    """Return one SVG for each plane in which all points have a cost."""

    def drawn(name: str, axis: CostAxis) -> str:
        return _svg(name, lambda path: draw_frontier(points, path, axis=axis, metric=metric, inches=INCHES))

    return {
        name: drawn(name, axis)
        for name, axis in PLANES.items()
        if points and all(axis.of(point) > 0 for point in points)
    }


def cascade_picture(curve: CascadeCurve, metric: str) -> str:
    """Return the SVG of the variants alone and of the cascades between them."""
    return _svg("cascades", lambda path: draw_cascades(curve, path, metric, INCHES))


def draw_cascades(curve: CascadeCurve, path: Path, metric: str, inches: tuple[float, float] = (7.2, 4.4)) -> None:
    """Draw variants alone and the cascades between them, on the same rows, as PNG or SVG.

    Raises `ValueError` for another suffix than `.png` or `.svg`.
    """
    with picture(path, inches, "", "expected latency of one row (ms)", f"{metric} (%)") as axes:
        points = curve.cascades
        mark_powers(axes, [point.latency_s * 1e3 for point in (*curve.singles, *points)])
        axes.plot(
            [point.latency_s * 1e3 for point in points],
            [point.quality * 100 for point in points],
            color=_CASCADE,
            marker=".",
            markersize=5,
            linewidth=1.4,
            label="cascades",
        )
        axes.errorbar(
            [point.latency_s * 1e3 for point in curve.singles],
            [point.quality * 100 for point in curve.singles],
            yerr=[point.standard_error * 100 for point in curve.singles],
            fmt="o",
            color=ON,
            label="one variant",
            markersize=6.5,
            elinewidth=1.0,
            capsize=2.5,
        )
        axes.figure.legend(loc="outside lower center", ncols=2, frameon=False)
        marks = [
            Mark(point.start, point.latency_s * 1e3, point.quality * 100, point.standard_error * 100)
            for point in curve.singles
        ]
        draw_labels(axes, marks)


def _svg(name: str, draw: Callable[[Path], None]) -> str:
    """Return what is drawn as an SVG element whose colours are the page's variables."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.svg"
        draw(path)
        text = path.read_text(encoding="utf-8")
    # Without the header of a file, and without ids that several pictures would share and none needs.
    text = text[text.index("<svg") :]
    text = re.sub(rf' id="(?:{_UNUSED_IDS})[\w.-]*"', "", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for colour, variable in _COLOURS.items():
        text = re.sub(rf"((?:fill|stroke): ?){re.escape(colour)}\b", rf"\1var({variable})", text, flags=re.IGNORECASE)
    # Text without a colour of its own is black by default.
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'fill="currentColor" role="img"', text, count=1)
