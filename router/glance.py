"""A glance instead of a look: while the last look is some milliseconds old, its price of time is good enough.

A look costs a tenth of a millisecond or two. Where batches follow each other that closely, prices hardly change from
one to the next, but the looks would take a tenth of the machine. A glance values time by the line through the last
look's price (our routing study: 0.1 to 0.3 points less than the curve) and ranks the choices of each kind of rows
once; then a decision is the first of that rank which leaves everybody feasible. Feasibility is checked anew each time,
at the first, the middle and the last row of every lane.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import NamedTuple

import numpy as np

from router.demand import DemandKey
from router.fluid import Curve, Segments
from router.view import Lane
from router.worth import Table

GLANCE_S = 0.005
"""A look is used for this long."""
BEST = 32
"""A ranking has this many choices; where none of them is feasible, a look finds what is."""


class Choice(NamedTuple):
    """A variant (index), a number of rows, the seconds that the batch is planned to take, and what it is worth."""

    variant: int
    rows: int
    seconds: float
    worth: float


class Checkpoint(NamedTuple):
    """Of the rows due until some moment: seconds to spare before it if all are answered at their cheapest.

    `rows` counts them, `own` those of the lane whose turn it is.
    """

    spare_s: float
    rows: int
    own: int


def ranked(table: Table, key: DemandKey, weight: float, segments: Segments, kind: int, curve: Curve) -> list[Choice]:
    """All choices for rows of a kind, best first; of equal ones the cheaper."""
    price = max(curve.price, float(table.prices.price[0]) * weight / table.scale)
    choices = table.choices(key, table.most, price / weight)
    given, given_s = segments.taken[curve.segments, kind], segments.taken_s[curve.segments, kind]
    each = weight * choices.quality - given + price * (given_s - choices.later_s)
    worth = choices.rows * each - price * choices.likely_s
    order = (-worth).argsort(axis=None, kind="stable")[:BEST]
    variant, batch = np.divmod(order, len(choices.rows))
    columns = (choices.variants[variant], choices.rows[batch], choices.seconds.ravel()[order], worth.ravel()[order])
    return list(map(Choice, *(column.tolist() for column in columns)))


def checkpoints(lanes: tuple[Lane, ...], lane: Lane, slots: int, now: float) -> tuple[list[Checkpoint], float]:
    """Where feasibility is looked at, and the planned cheapest seconds of one row of `lane`, all slots working."""
    due: list[tuple[Lane, list[float], float]] = []
    moments: set[float] = set()
    own_s = 0.0
    for other in lanes:
        deadlines = [item.deadline_s for item in other.items]
        row_s = other.latency.full_row_s(other.key.lowest, other.key.size_class) / slots
        due.append((other, deadlines, row_s))
        moments |= {deadlines[0], deadlines[len(deadlines) // 2], deadlines[-1], other.last_deadline_s}
        if other is lane:
            own_s = row_s
    found = []
    for moment in moments:
        rows = own = 0
        work_s = 0.0
        for other, deadlines, row_s in due:
            count = other.depth if moment >= other.last_deadline_s else bisect_right(deadlines, moment)
            rows += count
            work_s += count * row_s
            if other is lane:
                own = count
        found.append(Checkpoint(moment - now - work_s, rows, own))
    return found, own_s


def feasible(choice: Choice, points: list[Checkpoint], own_s: float, keep_s: float) -> bool:
    """Whether everybody behind the choice's rows can still be answered at their cheapest, `keep_s` before the end."""
    for point in points:
        taken = min(choice.rows, point.own)
        if taken < point.rows and choice.seconds + keep_s > point.spare_s + taken * own_s:
            return False
    return True


def least_loss(
    ranking: list[Choice], variant: int, deadlines: list[float], lost: float, now: float
) -> tuple[Choice, int] | None:
    """Where nothing is feasible: the batch of a variant that is worth most, less what the heads too tight for it were.

    `lost` is the value of a row that is given up. Returns the choice and how many heads go; None where no batch fits.
    """
    best: tuple[Choice, int] | None = None
    most = -np.inf
    for choice in ranking:
        if choice.variant != variant:
            continue
        tight = bisect_left(deadlines, now + choice.seconds)
        worth = choice.worth - tight * lost
        if tight + choice.rows <= len(deadlines) and worth > most:
            best, most = (choice, tight), worth
    return best
