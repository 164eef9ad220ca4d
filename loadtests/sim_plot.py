"""The picture of live against simulated runs: one row a scenario, one dot a seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from loadtests.scoring import Score

_LEAST_SPAN = 5.0
"""Points that an axis spans at least, so that a tenth of a point does not look like a gulf."""
# Okabe and Ito's palette, which colour-blind readers can tell apart.
_LIVE, _SIMULATED = "#0072B2", "#D55E00"
_MEASURES = (("attainment", "SLO attainment, % of all arrivals"), ("effective_accuracy", "Effective accuracy, %"))


def draw_side_by_side(runs: Sequence[tuple[str, Score, Score]], path: Path) -> None:
    """Draw (scenario, live score, simulated score) of each run as a PNG or SVG, by the path's ending."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second that only drawing should cost

    scenarios = list(dict.fromkeys(name for name, _, _ in runs))
    figure = Figure(figsize=(10.0, 1.2 + 0.6 * len(scenarios)), layout="constrained")
    axes = figure.subplots(1, len(_MEASURES), sharey=True)
    for axis, (measure, title) in zip(axes, _MEASURES, strict=True):
        for kind, colour, marker, shift, column in (
            ("live", _LIVE, "o", -0.12, 1),
            ("simulated", _SIMULATED, "D", 0.12, 2),
        ):
            values = [getattr(run[column], measure) * 100.0 for run in runs]
            rows = [scenarios.index(run[0]) + shift for run in runs]
            axis.scatter(values, rows, s=34, color=colour, marker=marker, alpha=0.8, label=kind, linewidths=0)
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_yticks(range(len(scenarios)), scenarios)
        axis.set_ylim(len(scenarios) - 0.5, -0.5)
        axis.grid(axis="x", color="#dddddd", linewidth=0.8)
        axis.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
        axis.tick_params(axis="y", length=0)
        low, high = axis.get_xlim()
        middle, half = (low + high) / 2.0, max(high - low, _LEAST_SPAN) / 2.0
        axis.set_xlim(middle - half, middle + half)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
