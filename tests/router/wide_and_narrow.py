"""A family on two devices: a wide one, and a narrow one on which everything takes twice as long."""

from __future__ import annotations

from dataclasses import replace

from router.contract import Slot
from router.family import Family
from router.latency import LatencyModel, table
from router.policies import POLICIES
from router.view import Lane
from tests.queued import FAMILY

NAMED = [name for name in POLICIES if "<" not in name]
SLOTS = (Slot(0, "wide", 2), Slot(1, "narrow", 1))


def two(family: Family, slower: float) -> Family:
    """The family with a device `narrow` on which all takes so many times as long."""

    def row(seconds: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(slower * s for s in seconds)

    return replace(
        family,
        variants=tuple(
            replace(v, elsewhere=(("narrow", table(v.latency.batches, *map(row, v.latency.median_s))),))
            for v in family.variants
        ),
    )


TWO = two(FAMILY, 2.0)


def replace_latency(some: Lane) -> Lane:
    return some._replace(family=TWO, latency=LatencyModel(TWO, 1.0))
