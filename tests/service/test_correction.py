"""Corrections: the router is told of a variant that drifts, once, and of its return."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from router.agreement import Rules, corrected
from router.family import Evidence, Family
from service.correction import Correction
from service.live_quality import LiveQuality
from tests.queued import FAMILY
from tests.router.served import serve
from tests.router.test_background import interactive

BUILT = replace(
    FAMILY,
    evidence=Evidence(
        np.tile(FAMILY.evidence.correct, 50),  # type: ignore[union-attr]  # the family of these tests has evidence
        np.tile(FAMILY.evidence.confidence, 50),  # type: ignore[union-attr]  # as above
        np.tile(np.arange(20) >= np.array([[12], [15], [18]]), 50).astype(np.int64),
    ),
)
"""`small` gives the answer of `large` on 14 rows of 20."""


class Believer:
    """Takes note of what it is told, as long as `serves` is the family that is served."""

    def __init__(self, *, faults: int = 0) -> None:
        self.serves: Family | None = BUILT
        self.told: list[Family] = []
        self.faults = faults

    def measured(self, name: str) -> Family | None:
        return self.serves if name == "f" else None

    async def believe(self, measured: Family, lost: Mapping[str, float]) -> bool:
        await asyncio.sleep(0)
        if self.faults:
            self.faults -= 1
            raise RuntimeError("not today")
        if measured is self.serves:
            self.told.append(corrected(measured, lost))
        return measured is self.serves


def drifting(quality: LiveQuality, rows: int = 400) -> float:
    """Has `small` agree on half of so many rows; returns the time after that."""
    for second in range(rows):
        quality.compare(BUILT, "small", second % 2 == 0, float(second))
    return float(rows)


def look(correction: Correction, now: float, name: str = "f") -> None:
    correction.compared(name)
    asyncio.run(correction.look(now))


def test_what_a_drifting_variant_lost_is_taken_from_it_and_given_back() -> None:
    """It agrees on half of the rows instead of 0.7: its quality and evidence are lower by 0.2 until it does again."""
    quality, believer = LiveQuality(Rules(window_s=500.0, margin=0.02, hold_s=10.0)), Believer()
    correction = Correction(quality, believer.measured, believer.believe)
    for second in range(1000):
        quality.compare(BUILT, "small", second % 2 == 0, float(second))
        look(correction, float(second))
        look(correction, float(second), "nobody")
    believed = believer.told[-1]
    assert believed.variants[0].quality == pytest.approx(FAMILY.variants[0].quality - 0.2, abs=0.03)
    assert believed.variants[0].measured == pytest.approx(FAMILY.variants[0].quality)
    assert believed.variants[1:] == FAMILY.variants[1:]
    assert believed.evidence is not None
    assert believed.evidence.correct[0].mean() == pytest.approx(0.6 - 0.2, abs=0.03)
    assert len(believer.told) == correction.changes < 20, "small changes are not told"
    for second in range(1000, 6000, 5):
        quality.compare(BUILT, "small", second % 50 < 35, float(second))
        look(correction, float(second))
    assert believer.told[-1] is BUILT


def test_a_variant_that_nobody_chooses_any_more_is_tried_again_in_the_end() -> None:
    """Without new comparisons, belief returns once the old ones are forgotten."""
    quality, believer = LiveQuality(Rules(window_s=100.0, hold_s=10.0)), Believer()
    correction = Correction(quality, believer.measured, believer.believe)
    now = drifting(quality)
    look(correction, now)
    assert believer.told[-1].variants[0].lost
    asyncio.run(correction.look(now + 1000.0))
    assert believer.told[-1] is BUILT


def test_a_family_that_is_loaded_anew_is_told_of_again_but_no_other_revision() -> None:
    """The same revision has its variants as it had them; what was found of another one says nothing."""
    quality, believer = LiveQuality(Rules(hold_s=10.0)), Believer()
    correction = Correction(quality, believer.measured, believer.believe)
    now = drifting(quality)
    look(correction, now)
    asyncio.run(correction.look(now))
    assert len(believer.told) == 1
    believer.serves = replace(BUILT)
    asyncio.run(correction.look(now))
    assert len(believer.told) == 2
    assert believer.told[-1].variants[0].lost
    believer.serves = replace(BUILT, revision="2")
    asyncio.run(correction.look(now))
    believer.serves = None
    asyncio.run(correction.look(now))
    assert len(believer.told) == 2


def test_a_belief_that_came_to_nothing_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """A fault is logged, and the next look has what it should have had."""
    quality, believer = LiveQuality(Rules(hold_s=10.0)), Believer(faults=1)
    correction = Correction(quality, believer.measured, believer.believe)
    now = drifting(quality)
    look(correction, now)
    assert "not today" in caplog.text
    assert not believer.told
    asyncio.run(correction.look(now))
    assert believer.told[-1].variants[0].lost


def test_the_router_prefers_better_variants_to_one_that_drifts() -> None:
    """Under load that leaves a choice, a `small` that is believed to be worth little answers fewer rows."""
    requests = interactive(90.0, 0.1)

    def share(lost: float) -> float:
        records = serve(corrected(BUILT, {"small": lost}), "casc", requests)
        return sum(record.variant == "small" for record in records) / len(records)

    assert share(0.5) < share(0.0)


def test_a_drift_is_found_though_the_first_comparison_came_without_evidence() -> None:
    """Under a memory budget evidence is there while two variants are: what was expected is looked up again."""
    quality = LiveQuality(Rules(window_s=500.0, margin=0.02, hold_s=10.0))
    quality.compare(replace(BUILT, evidence=None), "small", True, 0.0)
    assert {"small"} == quality.lost(BUILT, drifting(quality)).keys()
