"""The pictures of the routing benchmark: differences, accuracy against attainment, and one burst in time."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from loadtests.outcomes import Fate, Results
from loadtests.routing_table import RunTable
from loadtests.workload import Workload

# Okabe and Ito's palette, which colour-blind readers can tell apart.
_COLOURS = ("#0072B2", "#56B4E9", "#009E73", "#F0E442", "#E69F00", "#D55E00", "#CC79A7", "#999999")
_SUBJECT, _OTHER = "#D55E00", "#0072B2"
_BINS = 100
_WINDOW = 0.15
"""Policies further behind the subject are told, not drawn to scale: they would press all others into one corner."""


def draw_differences(table: RunTable, subject: str, path: Path) -> None:
    """One row a policy: what it gains or loses against the subject over the suite, with its 95 % interval."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second that only drawing should cost

    rows = []
    for policy in table.policies:
        difference = table.difference(policy, subject)
        if policy != subject and difference is not None:
            rows.append((policy, difference))
    if not rows:
        return
    rows.sort(key=lambda row: row[1].mean)
    figure = Figure(figsize=(8.0, 1.4 + 0.32 * len(rows)), layout="constrained")
    axis = figure.subplots()
    for row, (_, difference) in enumerate(rows):
        middle = max(difference.mean, -_WINDOW) * 100.0
        near = difference.mean >= -_WINDOW
        if near and math.isfinite(difference.low):
            axis.plot((difference.low * 100.0, difference.high * 100.0), (row, row), color=_OTHER, linewidth=2.0)
        axis.scatter([middle], [row], color=_OTHER, marker="o" if near else "<", s=30, zorder=3)
        text = f"{difference.mean * 100.0:+.1f}"
        axis.annotate(text, (middle, row), textcoords="offset points", xytext=(0, 5), ha="center", size=7)
    low, high = axis.get_xlim()
    axis.set_xlim(max(low, -_WINDOW * 107.0), high)
    axis.axvline(0.0, color=_SUBJECT, linewidth=1.2)
    axis.set_yticks(range(len(rows)), [policy for policy, _ in rows])
    axis.set_title(f"Effective accuracy minus {subject}'s, points (mean over the suite, 95 %)", fontsize=10, loc="left")
    axis.grid(axis="x", color="#dddddd", linewidth=0.8)
    axis.set_axisbelow(True)
    _save(figure, path)


def draw_scatter(table: RunTable, subject: str, path: Path) -> None:
    """One dot a policy: mean attainment against the accuracy of what it answered, over the suite.

    Policies far behind the subject are named instead.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    figure = Figure(figsize=(7.5, 5.5), layout="constrained")
    axis = figure.subplots()
    far = []
    for policy in table.policies:
        attainment, accuracy = table.suite_mean(policy, "attainment"), table.suite_mean(policy, "accuracy")
        if attainment is None or accuracy is None:
            continue
        difference = table.difference(policy, subject)
        if difference is not None and difference.mean < -_WINDOW:
            far.append(policy)
            continue
        at = (attainment * 100.0, accuracy * 100.0)
        axis.scatter(*at, s=40, color=_SUBJECT if policy == subject else _OTHER)
        axis.annotate(policy, at, textcoords="offset points", xytext=(5, 3), size=8)
    axis.set_xlabel("attainment, % of all arrivals")
    axis.set_ylabel("accuracy, % of the answered")
    title = "Means over the suite; up and to the right is better"
    if far:
        title += f"\nfar to the left: {', '.join(far)}"
    axis.set_title(title, fontsize=10, loc="left")
    axis.grid(color="#dddddd", linewidth=0.8)
    axis.set_axisbelow(True)
    _save(figure, path)


def draw_burst(workload: Workload, results: Results, variants: tuple[str, ...], title: str, path: Path) -> None:
    """What became of the requests of each moment, stacked: by which variant answered in time, late, or refused."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    edges = np.linspace(0.0, workload.duration_s, _BINS + 1)
    width_s = float(edges[1])
    answered = results.fate == Fate.ANSWERED
    in_time = answered & (results.latency_s <= workload.slo_s)
    parts = [(name, in_time & (results.variant == name), _COLOURS[i % 7]) for i, name in enumerate(variants)]
    parts.append(("mixed", in_time & (results.variant == "mixed"), "#000000"))
    parts.append(("late", answered & ~in_time, "#bbbbbb"))
    parts.append(("not answered", ~answered, "#eeeeee"))
    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    axis = figure.subplots()
    counts = [np.histogram(workload.arrival_s[chosen], edges)[0] / width_s for _, chosen, _ in parts]
    shown = [index for index, count in enumerate(counts) if count.any()]
    axis.stackplot(
        edges[:-1] + width_s / 2.0,
        [counts[index] for index in shown],
        labels=[parts[index][0] for index in shown],
        colors=[parts[index][2] for index in shown],
        step="mid",
    )
    axis.set_xlim(0.0, workload.duration_s)
    axis.set_xlabel("seconds")
    axis.set_ylabel("requests/s")
    axis.set_title(title, fontsize=10, loc="left")
    figure.legend(loc="outside lower center", ncols=len(shown), frameon=False, fontsize=8)
    _save(figure, path)


def _save(figure: object, path: Path) -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    assert isinstance(figure, Figure), "figures are matplotlib's"
    for axis in figure.axes:
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
