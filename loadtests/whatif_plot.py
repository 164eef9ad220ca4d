"""The picture of a forecast: what became of requests second by second, their latency, and what more replicas change.

Needs matplotlib and takes half a second to import, so import it where a picture is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from loadtests.outcomes import Fate
from loadtests.whatif import Forecast
from loadtests.workload import Workload

MOST_BINS, BIN_REQUESTS = 120, 40
"""Time is cut so that a bin has so many requests on average."""
# Okabe and Ito's palette, which colour-blind readers can tell apart.
_BLUE, _ORANGE, _LATE, _REFUSED = "#0072B2", "#D55E00", "#F0A58A", "#BBBBBB"
_SLO_LINES = 4
"""More SLOs than that are not drawn as lines."""


def draw_forecasts(
    forecasts: Sequence[Forecast], shown: Forecast, workload: Workload, variants: Sequence[str], path: Path
) -> None:
    """Draw the `shown` forecast over time, its first seed being `workload`, and all of them by replicas where several.

    `variants` are the family's, cheapest first. Raises `ValueError` for another suffix than `.png` or `.svg`, and
    `OSError` where the file cannot be written.
    """
    if path.suffix not in (".png", ".svg"):
        raise ValueError(f"{path}: expected .png or .svg")
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "forecast", "font.size": 9.5}):
        panels = 2 + (len(forecasts) > 1)
        figure = Figure(figsize=(8.0, 2.6 * panels + 0.5), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(panels, 1)
        replicas = f"{shown.replicas} replica{'s' if shown.replicas > 1 else ''}"
        _draw_answers(
            axes[0], shown, workload, variants, f"What became of requests: {replicas}, {workload.description}"
        )
        _draw_latency(axes[1], shown, workload)
        if len(forecasts) > 1:
            _draw_replicas(axes[2], forecasts)
        for axis in axes:
            axis.grid(color="#E6E6E6", linewidth=0.7)
            axis.set_axisbelow(True)
            axis.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw_answers(axis: Axes, shown: Forecast, workload: Workload, variants: Sequence[str], title: str) -> None:
    results, edges_s, place = shown.first, *_bins(workload)
    width_s = edges_s[1] - edges_s[0]
    answered = results.fate == Fate.ANSWERED
    on_time = answered & (results.latency_s <= workload.slo_s)
    kinds: list[tuple[str, Any, Any]] = [
        (name, on_time & (results.variant == name), mpl.colormaps["viridis"](0.92 * index / max(1, len(variants) - 1)))
        for index, name in enumerate(variants)
    ]
    kinds += [("late", answered & ~on_time, _LATE), ("refused", ~answered, _REFUSED)]
    kinds = [kind for kind in kinds if kind[1].any()]
    rates = [np.bincount(place[of_kind], minlength=len(edges_s) - 1) / width_s for _, of_kind, _ in kinds]
    middles_s = (edges_s[:-1] + edges_s[1:]) / 2.0
    labels, colours = [name for name, _, _ in kinds], [colour for _, _, colour in kinds]
    axis.stackplot(middles_s, rates, labels=labels, colors=colours, step="mid", linewidth=0)
    axis.set_xlim(0.0, edges_s[-1])
    axis.set_ylabel("requests/s")
    axis.set_title(title, loc="left", fontsize=9.5)
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8.5, reverse=True)


def _draw_latency(axis: Axes, shown: Forecast, workload: Workload) -> None:
    results, edges_s, place = shown.first, *_bins(workload)
    answered = np.flatnonzero(results.fate == Fate.ANSWERED)
    middles_s = (edges_s[:-1] + edges_s[1:]) / 2.0
    by_bin = [results.latency_s[answered[place[answered] == index]] * 1e3 for index in range(len(middles_s))]
    for percent, colour in ((50.0, _BLUE), (99.0, _ORANGE)):
        values = [np.percentile(own, percent) if len(own) else np.nan for own in by_bin]
        axis.plot(middles_s, values, color=colour, linewidth=1.3, label=f"p{percent:g}")
    slos_ms = np.unique(workload.slo_s) * 1e3
    for slo_ms in slos_ms if len(slos_ms) <= _SLO_LINES else ():
        label = "SLO" if slo_ms == slos_ms[0] else None
        axis.axhline(slo_ms, color="#444444", linewidth=0.9, linestyle="--", label=label)
    axis.set_xlim(0.0, edges_s[-1])
    axis.set_ylim(bottom=0.0)
    axis.set_ylabel("latency (ms)")
    axis.set_xlabel("time (s)")
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8.5)


def _draw_replicas(axis: Axes, forecasts: Sequence[Forecast]) -> None:
    counts = [forecast.replicas for forecast in forecasts]
    for name, measure, colour, marker in (
        ("SLO attainment", "attainment", _BLUE, "o"),
        ("effective accuracy", "effective_accuracy", _ORANGE, "D"),
    ):
        spreads = [getattr(forecast, measure) for forecast in forecasts]
        mean = np.array([spread.mean for spread in spreads]) * 100.0
        around = [(spread.mean - spread.low, spread.high - spread.mean) for spread in spreads]
        error = np.maximum(np.array(around).T * 100.0, 0.0)
        axis.errorbar(counts, mean, error, color=colour, marker=marker, label=name, linewidth=1.3, capsize=2.5)
    axis.set_xticks(counts)
    axis.set_xlabel("replicas (bars: least and most of the seeds)")
    axis.set_ylabel("% of all requests")
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8.5)


def _bins(workload: Workload) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Edges of equal bins of time, and the bin of each request."""
    bins = min(max(len(workload) // BIN_REQUESTS, 1), MOST_BINS)
    edges_s = np.linspace(0.0, max(workload.duration_s, 1e-3), bins + 1)
    place = np.minimum(np.searchsorted(edges_s, workload.arrival_s, side="right") - 1, bins - 1)
    return edges_s, place
