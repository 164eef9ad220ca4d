"""Lasting overload by rows of very different sizes: who is answered, and how many."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import pytest

from router.family import Evidence, Family, VariantProfile
from router.latency import table
from router.request import NEVER, Request
from tests.router.served import serve

SLO_S = 0.1
CLASSES = 3


@cache
def family(*, staged: bool) -> Family:
    """Rows of the largest size class take twelve times as long as those of the smallest, 0.3 to 2 ms in a batch."""
    evidence = Evidence(
        np.arange(1000) < np.array([[600], [750], [900]]),
        np.tile(np.linspace(0.98, 0.41, 1000, dtype=np.float32), (3, 1)),
    )
    names, each_s = ("small", "middle", "large"), (0.0004, 0.001, 0.002)
    variants = tuple(
        VariantProfile(
            name,
            quality,
            table((1, 16), *((times * row_s, times * row_s * (0.3 + 0.7 * 16)) for times in (1, 3, 12))),
            names[: rung + 1] if staged else (name,),
        )
        for rung, (name, quality, row_s) in enumerate(zip(names, (0.6, 0.75, 0.9), each_s, strict=True))
    )
    return Family("f", variants, sizes=(16, 48, 192), max_batch=16, evidence=evidence)


class Answered(NamedTuple):
    """Shares of all requests, and of those of each size class, that were answered in time."""

    share: float
    by_class: list[float]


@cache
def answered(policy: str, overload: float, *, staged: bool = False, slots: int = 1) -> Answered:
    """Two seconds of so many times what the quickest variant could do in full batches, equally many of each size."""
    loaded = family(staged=staged)
    row_s = np.mean([seconds[1] / 16 for seconds in loaded.variants[0].latency.median_s]) / slots
    rate = overload / float(row_s)
    rng = np.random.default_rng(3)
    count = int(2.0 * rate)
    at = np.cumsum(rng.exponential(1.0 / rate, count))
    classes = rng.integers(0, CLASSES, count)
    requests = [
        Request(number, "f", (size_class,), arrival_s, arrival_s + SLO_S, NEVER)
        for number, (arrival_s, size_class) in enumerate(zip(at.tolist(), classes.tolist(), strict=True))
    ]
    in_time = np.zeros(count, np.bool_)
    for record in serve(loaded, policy, requests, slots):
        in_time[record.request_id] = record.slo_met
    return Answered(float(in_time.mean()), [float(in_time[classes == number].mean()) for number in range(CLASSES)])


LOADS = pytest.mark.parametrize(
    ("policy", "staged", "slots"),
    [("fluid", False, 1), ("casc", False, 1), ("casc", True, 1), ("casc", True, 2)],
)
OVERLOADS = pytest.mark.parametrize("overload", [1.3, 3.0])


@LOADS
@OVERLOADS
def test_as_many_rows_are_answered_as_by_the_quickest_variant(
    policy: str, staged: bool, slots: int, overload: float
) -> None:
    """Weighing better answers does not cost answers: at least 0.97 of them."""
    most = answered("fastest", overload, staged=staged, slots=slots).share
    assert answered(policy, overload, staged=staged, slots=slots).share >= 0.97 * most


@LOADS
@OVERLOADS
def test_rows_of_every_size_still_get_answers(policy: str, staged: bool, slots: int, overload: float) -> None:
    """No size class is given up: each gets at least half of the answers that the quickest variant gives it."""
    fair = answered("fastest", overload, staged=staged, slots=slots).by_class
    ours = answered(policy, overload, staged=staged, slots=slots).by_class
    for share, theirs in zip(ours, fair, strict=True):
        assert share >= 0.5 * theirs > 0.0
