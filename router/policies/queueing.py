"""Closed forms for one slot that serves Poisson arrivals in batches of known duration (M/D/1 with batch service).

The published rules find these figures by simulating a variant offline; the chain below has the same model of the
machine and needs no random numbers.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEAST_COUNTED = 96
STEPS = 500
SETTLED = 1e-6
"""A distribution that changes less than that in one step stands still."""


def poisson(means: Floats, most: int) -> Floats:
    """Probabilities of 0..most events for each mean (any shape, above 0): float64 [..., most + 1].

    The last one is that of `most` or more.
    """
    counts = np.arange(most + 1)
    log_factorials = np.array([math.lgamma(count + 1.0) for count in counts])
    chances: Floats = np.exp(counts * np.log(means)[..., None] - means[..., None] - log_factorials)
    chances[..., -1] = np.maximum(0.0, 1.0 - chances[..., :-1].sum(axis=-1))
    return chances


def late_share(seconds: Floats, rate_per_s: float, slo_s: float) -> float:
    """Share of rows answered after more than `slo_s`, where one variant serves everything, in [0, 1].

    `seconds[b - 1]` is what a batch of b takes, for b up to the largest allowed. Whenever the slot is free it takes
    all that wait, at most the largest batch. The chain is over the number waiting when a batch starts, cut off at four
    of the largest batches and not below 96; it is followed from an empty slot until its distribution stands still.
    A row that comes during a batch waits for the rest of it (uniform), for the batches before its own and for its own,
    at the mean place of those that came with it: close to a simulation (a test holds it to a tenth) where violations
    are common, a little low where they are rare. Beyond capacity: 1.
    """
    largest = len(seconds)
    if rate_per_s * seconds[-1] >= largest:
        return 1.0
    most = max(LEAST_COUNTED, 4 * largest)
    waiting = np.arange(1, most + 1)
    batches = np.minimum(waiting, largest)
    took_s = seconds[batches - 1]
    chances = poisson(rate_per_s * took_s, most)
    left = (waiting - batches)[:, None] + np.arange(most + 1)[None, :]
    following = np.clip(left, 1, most)
    moves = np.zeros((most, most))
    np.add.at(moves, (np.arange(most)[:, None], following - 1), chances)
    share = np.zeros(most)
    share[0] = 1.0
    for _ in range(STEPS):
        before, share = share, share @ moves
        if np.abs(share - before).sum() < SETTLED:
            break
    before_row = (waiting - batches)[:, None] + np.maximum(np.arange(most + 1) - 1, 0)[None, :] / 2.0
    turn = (before_row // largest).astype(np.int64)
    own = np.clip(following - turn * largest, 1, largest)
    after_s = turn * seconds[-1] + seconds[own - 1]
    too_late = np.clip(1.0 - (slo_s - after_s) / took_s[:, None], 0.0, 1.0)
    late = float(share @ (chances * np.arange(most + 1) * too_late).sum(axis=1))
    came = float(share @ (rate_per_s * took_s))
    idle = float(share @ (chances * (left == 0)).sum(axis=1))
    return min(1.0, (late + idle * float(seconds[0] > slo_s)) / (came + idle))
