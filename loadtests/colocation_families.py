"""Many families on one machine, on paper: what they cost, how good they are, which SLO they have and who asks for them.

Copies of the synthetic family that differ in speed, accuracy and SLO. Requests of each family arrive by a process of
their own; how much of the machine a family asks for is set by its rank (Zipf), how bursty it is by the mix.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadtests.samples import Samples
from loadtests.synthetic import ACCURACY, synthetic
from loadtests.traces import Seconds, Shape, arrivals
from router.family import Family
from router.latency import LatencyModel

SLOS_S = (0.03, 0.06, 0.15, 0.4)
"""SLOs of the families, in turn."""
SLOWER = (0.5, 0.7, 1.0, 1.4)
"""Seconds of the families over those of the synthetic one, in turn: not in step with the SLOs beyond four families."""
_SHAPE = Shape()
_SPREAD = 0.5
"""Errors of the best family over those of the synthetic one; of the worst, as much more."""


@dataclass(frozen=True, slots=True)
class Member:
    """A family with its samples and the SLO (seconds) of all requests for it."""

    family: Family
    samples: Samples
    slo_s: float
    request_s: float = 0.0
    """What a request costs beside the model, seconds, on a core of its own."""

    @property
    def row_s(self) -> float:
        """Profiled seconds of a request at its cheapest, in batches of at most half an SLO; at least `request_s`."""
        latency, cheapest = LatencyModel(self.family), self.family.ladder[0]
        class_s = []
        for size_class in range(len(self.family.sizes)):
            seconds = [latency.median_s(cheapest, batch, size_class) for batch in range(1, self.family.max_batch + 1)]
            fitting = [s / (index + 1) for index, s in enumerate(seconds) if index == 0 or s <= 0.5 * self.slo_s]
            class_s.append(min(fitting))
        return max(self.request_s, float(np.array(class_s)[self.samples.size_class].mean()))


@cache
def members(count: int) -> tuple[Member, ...]:
    """So many families, the same each time."""
    found = []
    for number in range(count):
        turn, round_ = number % len(SLOS_S), number // len(SLOS_S)
        slower = SLOWER[(turn + round_) % len(SLOWER)]
        # Evenly spread without a pattern: multiples of the golden ratio, modulo one.
        harder = _SPREAD + (number * 0.6180339887) % 1.0
        accuracy = [1.0 - harder * (1.0 - share) for share in ACCURACY]
        family, samples = synthetic(number, f"family-{number:02}", slower, accuracy)
        found.append(Member(family, samples, SLOS_S[turn]))
    return tuple(found)


class Burst(NamedTuple):
    """One family (its index) asks `times` as much as usual from `start_s` on for `seconds`."""

    member: int
    times: float = 10.0
    start_s: float = 2.0
    seconds: float = 2.0


@dataclass(frozen=True, slots=True)
class Mix:
    """Who asks for how much: `load` is of the seconds of all slots, everything at its cheapest and nobody bursting.

    Families are asked for in proportion to 1 / rank ** `zipf` of the machine's time (0: equally); ranks do not follow
    the order of SLOs. `burst` comes on top. `process` and `shape` are those of each family's arrivals.
    """

    name: str
    load: float
    zipf: float = 0.0
    process: str = "poisson"
    shape: Shape = _SHAPE
    burst: Burst | None = None

    @property
    def quiet(self) -> Mix:
        """The same without the burst."""
        return replace(self, burst=None)


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Requests of one row, in order of arrival: arrays of one length n.

    `member` int64 [n] indexes the families, `sample` int64 [n] the samples of that family; times are float64 seconds.
    `extra` bool [n] marks what a burst adds.
    """

    arrival_s: Seconds
    member: NDArray[np.int64]
    sample: NDArray[np.int64]
    extra: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.arrival_s)


def shares(mix: Mix, count: int) -> NDArray[np.float64]:
    """Share of the load that each of so many families is expected to ask for: float64 [count], sums to 1."""
    ranks = np.random.default_rng(count).permutation(count) + 1
    share = ranks.astype(np.float64) ** -mix.zipf
    return np.asarray(share / share.sum())


def draw(mix: Mix, families: tuple[Member, ...], slots: int, duration_s: float, seed: int) -> Arrivals:
    """The arrivals of a mix and a seed. With and without its burst, all others come at the same moments."""
    parts: list[tuple[Seconds, int, NDArray[np.int64], bool]] = []
    for number, (member, share) in enumerate(zip(families, shares(mix, len(families)).tolist(), strict=True)):
        rng = np.random.default_rng([seed, number, *mix.name.encode()])
        rate = mix.load * slots * share / member.row_s
        arrival_s = arrivals(mix.process, rate, duration_s, mix.shape, rng)
        parts.append((arrival_s, number, rng.integers(0, len(member.samples), len(arrival_s)), False))
        if mix.burst is not None and mix.burst.member == number:
            more = arrivals("poisson", (mix.burst.times - 1.0) * rate, mix.burst.seconds, mix.shape, rng)
            parts.append((more + mix.burst.start_s, number, rng.integers(0, len(member.samples), len(more)), True))
    arrival_s = np.concatenate([part[0] for part in parts])
    order = np.argsort(arrival_s, kind="stable")
    whose = np.concatenate([np.full(len(part[0]), part[1], dtype=np.int64) for part in parts])
    extra = np.concatenate([np.full(len(part[0]), part[3]) for part in parts])
    sample = np.concatenate([part[2] for part in parts])
    return Arrivals(arrival_s[order], whose[order], sample[order], extra[order])
