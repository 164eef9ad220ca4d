"""What the colocation benchmark found: a table, whether the goals are met, a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from loadtests.colocation_runs import BELOW, BURSTY, EDF, NOISY, OURS, PLAIN, STATIC, ZIPF, Measured, Outcome
from loadtests.report import percent

COLUMNS = ("families", "mix", "way to share", "attained", "least family", "Jain", "effective", "others, by burst", "us")
LEGEND = (
    "attained: answered within the SLO, of all requests; least: of the family that fared worst; aim: 99 %",
    "Jain: how alike the families fared, 1 is all alike; effective: answered in time and right, of all requests",
    "others, by burst: points of attainment that the others win (+) or lose (-) while one asks for ten times as much",
    "us: microseconds of a decision, simulated; 300 are aimed at",
)
"""What the columns say."""
_COLOURS = {OURS: "#D55E00", PLAIN: "#E69F00", STATIC: "#0072B2", EDF: "#999999"}
"""Of Okabe and Ito's palette, which colour-blind readers can tell apart."""


class Row(NamedTuple):
    """Means over so many seeds."""

    families: int
    mix: str
    contender: str
    seeds: int
    means: Measured


class Goal(NamedTuple):
    """One claim: what is wanted, what was found, whether that is enough."""

    what: str
    found: str
    met: bool


def rows_of(outcomes: Sequence[Outcome]) -> list[Row]:
    """One row for each number of families, mix and way to share that has a valid run, in the order of the runs."""
    grouped: dict[tuple[int, str, str], list[Outcome]] = {}
    for outcome in outcomes:
        if not outcome.valid:
            continue
        task = outcome.task
        grouped.setdefault((task.families, task.mix, task.contender), []).append(outcome)
    rows = []
    for (families, mix, contender), some in grouped.items():
        rows.append(Row(families, mix, contender, len(some), _means([one.measured for one in some])))
    return rows


def _means(some: Sequence[Measured]) -> Measured:
    moved = [one.neighbours for one in some if one.neighbours is not None]
    return Measured(
        fmean(one.attainment for one in some),
        fmean(one.effective for one in some),
        fmean(one.mean for one in some),
        fmean(one.least for one in some),
        fmean(one.jain for one in some),
        fmean(one.decision_us for one in some),
        fmean(one.decision_p99_us for one in some),
        fmean(moved) if moved else None,
    )


def goals(rows: Sequence[Row]) -> list[Goal]:
    """What is aimed at with ours, family count by family count."""
    by_key = {(row.families, row.mix, row.contender): row.means for row in rows}
    found = []
    for count in sorted({row.families for row in rows}):
        for mix in BELOW:
            ours, static = by_key.get((count, mix, OURS)), by_key.get((count, mix, STATIC))
            if ours is None or static is None:
                continue
            points, gain = 2.0 if mix == BURSTY else 1.0, 100.0 * (ours.effective - static.effective)
            where = f"{count} families, {mix}"
            found += [
                Goal(f"{where}: attainment at least 99 %", percent(ours.attainment), ours.attainment >= 0.99),
                Goal(f"{where}: {points:g} points over static shares", f"{gain:+.1f}", gain >= points),
                Goal(
                    f"{where}: least family within 2 points of the mean",
                    f"{100.0 * (ours.mean - ours.least):.2f}",
                    ours.mean - ours.least <= 0.02,
                ),
            ]
        noisy, calm = by_key.get((count, NOISY, OURS)), by_key.get((count, ZIPF, OURS))
        if noisy is not None and noisy.neighbours is not None:
            lost = -100.0 * noisy.neighbours
            found.append(Goal(f"{count} families: a burst costs others under 0.5 points", f"{lost:.2f}", lost < 0.5))
        if calm is not None and not math.isnan(calm.decision_us):
            found.append(
                Goal(f"{count} families: a decision in 300 us", f"{calm.decision_us:.0f}", calm.decision_us <= 300)
            )
    return found


def cells(row: Row) -> tuple[str, ...]:
    """One row of the table, in the order of `COLUMNS`."""
    means = row.means
    moved = "" if means.neighbours is None else f"{100.0 * means.neighbours:+.2f}"
    cost = "" if math.isnan(means.decision_us) else f"{means.decision_us:.0f}"
    shown = (percent(means.attainment), percent(means.least), f"{means.jain:.3f}", percent(means.effective))
    return (str(row.families), row.mix, row.contender, *shown, moved, cost)


def markdown(rows: Sequence[Row], found: Sequence[Goal], told: str) -> str:
    """Table and goals."""
    lines = ["# Many families on one machine", "", told, "", f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    lines += [f"| {' | '.join(cells(row))} |" for row in rows]
    lines += ["", *(f"- {line}" for line in LEGEND), "", "| goal | found | met |", "|---|---|---|"]
    lines += [f"| {goal.what} | {goal.found} | {'yes' if goal.met else '**no**'} |" for goal in found]
    return "\n".join(lines) + "\n"


def draw(rows: Sequence[Row], path: Path) -> None:
    """Effective accuracy, and the least family's attainment, of each way to share: bars by mix and family count."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second that only drawing should cost

    places = list(dict.fromkeys((row.families, row.mix) for row in rows))
    names = [name for name in _COLOURS if any(row.contender == name for row in rows)]
    figure = Figure(figsize=(1.2 + 1.0 * max(4, len(places)), 6.0), layout="constrained")
    axes = figure.subplots(2, 1, sharex=True)
    wide = 0.8 / max(1, len(names))
    for index, name in enumerate(names):
        own = {(row.families, row.mix): row.means for row in rows if row.contender == name}
        at = [place + (index - (len(names) - 1) / 2.0) * wide for place in range(len(places))]
        for axis, what in zip(axes, ("effective", "least"), strict=True):
            values = [100.0 * getattr(own[place], what) if place in own else 0.0 for place in places]
            axis.bar(at, values, wide, label=name, color=_COLOURS[name])
    axes[0].set_ylabel("effective accuracy, %")
    axes[1].set_ylabel("attainment of the least family, %")
    axes[1].set_xticks(range(len(places)), [f"{mix}\n{count}" for count, mix in places], fontsize=7)
    axes[0].legend(fontsize=7, ncols=len(names), loc="lower left")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
