"""The look-ahead with and without cascades, asked about views in which families share what is learnt."""

from __future__ import annotations

import pytest

from router.family import Family, VariantProfile
from router.latency import LatencyModel, table
from router.policies.look_ahead import LookAhead
from router.request import NEVER, Item
from router.view import Decision, Lane, View
from tests.queued import FAMILY

FLUID = LookAhead()
CASCADES = LookAhead(cascades=True)
BOTH = pytest.mark.parametrize("rule", [FLUID, CASCADES])

TINY = Family(
    "tiny",
    (
        VariantProfile("small", 0.60, table((1, 8), (0.00002, 0.00009))),
        VariantProfile("middle", 0.75, table((1, 8), (0.00005, 0.00026))),
        VariantProfile("large", 0.90, table((1, 8), (0.0001, 0.00045))),
    ),
    max_batch=8,
    evidence=FAMILY.evidence,
)
"""`FAMILY`, a hundred times quicker: 20 us for one row."""


def learnt_once(given_view: View) -> View:
    """The lanes of a family share what is learnt of its latencies, as they do in a scheduler."""
    known: dict[str, LatencyModel] = {}

    def shared(lanes: tuple[Lane, ...]) -> tuple[Lane, ...]:
        return tuple(some._replace(latency=known.setdefault(some.key.family, some.latency)) for some in lanes)

    return given_view._replace(lanes=shared(given_view.lanes), kept=shared(given_view.kept))


def decided(rule: LookAhead, given_view: View, now: float = 0.0) -> Decision:
    return rule.decide(None, learnt_once(given_view), now)[1]


def of(family: Family, some: Lane) -> Lane:
    """The same rows, of another family."""
    key = some.key._replace(family=family.name)
    return some._replace(key=key, family=family, latency=LatencyModel(family, 1.0))


def latest_start_s(rows: list[Item], slots: int) -> float:
    """How long a slot may be away from these rows of one lane: 9 ms of `small` for eight of them."""
    waits = [item.deadline_s - (count + 1) * 0.009 / 8 / slots for count, item in enumerate(rows)]
    return min(waits, default=NEVER)
