"""Many families in virtual time: on one gateway, and each on a gateway and a share of the machine of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from loadtests.colocation_families import Arrivals, Member
from loadtests.machine import Machine
from loadtests.simulator import replay
from router.contract import Dispatch, Record, Slot
from router.family import Family
from router.limits import Limits
from router.request import Request
from router.scheduler import Scheduler
from router.view import Policy
from router.words import Outcome

LIMITS = Limits(transit_s=0.0, ahead=0.7)
LEAST_SHARE = 0.02
"""Of a slot: no family is given less of the machine than that."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One entry a request: whether it was answered in time, and whether rightly: bool [n]; and what was recorded."""

    met: NDArray[np.bool_]
    right: NDArray[np.bool_]
    records: tuple[Record, ...]


def together(
    asked: Arrivals,
    families: Sequence[Member],
    policy: Policy,
    machine: Machine,
    seed: int,
    *,
    fair: bool = True,
) -> Answered:
    """All families on one gateway. The same arguments give the same answers."""
    scheduler = Scheduler(
        [member.family for member in families],
        [Slot(index) for index in range(machine.slots)],
        policy,
        LIMITS,
        fair=fair,
    )
    requests = [_request(index, families[member], at) for index, (member, at) in enumerate(_who(asked))]
    records, _ = replay(
        scheduler,
        requests,
        [member.family for member in families],
        machine,
        np.random.default_rng(seed),
        lambda dispatch: _confidences(dispatch, asked, families),
    )
    return _judged(asked, families, records)


def apart(
    asked: Arrivals, families: Sequence[Member], policy: Policy, machine: Machine, seed: int, shares: Sequence[float]
) -> Answered:
    """Each family on a gateway of its own, with one slot that is as fast as its share of all slots: static shares.

    A share of more than a whole slot is as many slots, each of its part. The gateways know how fast their slots are.
    """
    records: list[Record] = []
    for number, (member, share) in enumerate(zip(families, shares, strict=True)):
        own = np.flatnonzero(asked.member == number)
        if not len(own):
            continue
        whole = max(LEAST_SHARE, share * machine.slots)
        slots = max(1, round(whole))
        slowed = slower(member.family, slots / whole)
        scheduler = Scheduler([slowed], [Slot(index) for index in range(slots)], policy, LIMITS)
        requests = [_request(int(index), member, float(asked.arrival_s[index])) for index in own]
        ended, _ = replay(
            scheduler,
            requests,
            [slowed],
            replace(machine, slots=slots),
            np.random.default_rng([seed, number]),
            lambda dispatch: _confidences(dispatch, asked, families),
        )
        records += ended
    return _judged(asked, families, records)


def slower(family: Family, times: float) -> Family:
    """The family on a machine on which everything takes so many times as long."""

    def stretched(rows: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(seconds * times for seconds in row) for row in rows)

    variants = tuple(
        replace(
            variant,
            latency=replace(
                variant.latency,
                median_s=stretched(variant.latency.median_s),
                tail_s=stretched(variant.latency.tail_s),
            ),
        )
        for variant in family.variants
    )
    return replace(family, variants=variants)


def _who(asked: Arrivals) -> zip[tuple[int, float]]:
    return zip(asked.member.tolist(), asked.arrival_s.tolist(), strict=True)


def _request(index: int, member: Member, arrival_s: float) -> Request:
    return Request(index, member.family.name, (0,), arrival_s, arrival_s + member.slo_s)


def _confidences(dispatch: Dispatch, asked: Arrivals, families: Sequence[Member]) -> list[float]:
    ids = [item.request_id for item in dispatch.items]
    confidence = families[int(asked.member[ids[0]])].samples.confidence[dispatch.variant]
    return [float(value) for value in confidence[asked.sample[ids]]]


def _judged(asked: Arrivals, families: Sequence[Member], records: Sequence[Record]) -> Answered:
    met, right = np.zeros(len(asked), dtype=np.bool_), np.zeros(len(asked), dtype=np.bool_)
    for record in records:
        index = record.request_id
        if record.outcome is not Outcome.SERVED:
            continue
        samples = families[int(asked.member[index])].samples
        row = int(asked.sample[index])
        met[index] = True
        right[index] = samples.predicted[record.variant][row] == samples.label[row]
    return Answered(met, right, tuple(records))
