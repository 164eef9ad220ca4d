"""Corrections: the router is told of a variant that drifts, once, and of its return."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from router.agreement import Rules
from router.contract import Evidence, Family
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


def test_what_a_drifting_variant_lost_is_taken_from_it_and_given_back() -> None:
    """It agrees on half of the rows instead of 0.7: its quality and evidence are lower by 0.2 until it does again."""
    quality = LiveQuality(Rules(window_s=500.0, margin=0.02, hold_s=10.0))
    told: list[Family] = []
    correction = Correction(quality, lambda _: told.append(correction.of(BUILT)))
    for second in range(1000):
        quality.compare(BUILT, "small", second % 2 == 0, float(second))
        correction.consider("f", float(second))
        correction.consider("nobody", float(second))
    believed = told[-1]
    assert believed.variants[0].quality == pytest.approx(FAMILY.variants[0].quality - 0.2, abs=0.03)
    assert believed.variants[1:] == FAMILY.variants[1:]
    assert believed.evidence is not None
    assert believed.evidence.correct[0].mean() == pytest.approx(0.6 - 0.2, abs=0.03)
    assert len(told) < 20, "small changes are not told"
    for second in range(1000, 6000):
        quality.compare(BUILT, "small", second % 10 < 7, float(second))
        correction.consider("f", float(second))
    assert told[-1] is BUILT


def test_the_router_prefers_better_variants_to_one_that_drifts() -> None:
    """Under load that leaves a choice, a `small` that is believed to be worth little answers fewer rows."""
    requests = interactive(90.0, 0.1)

    def share(lost: float) -> float:
        believed = replace(BUILT, evidence=Evidence(BUILT.evidence.correct, BUILT.evidence.confidence))  # type: ignore[union-attr]  # as above
        quality = LiveQuality(Rules(margin=0.0, hold_s=0.0))
        for second in range(2000):
            quality.compare(BUILT, "small", second % 100 >= 30 + round(100 * lost), 0.001 * second)
        correction = Correction(quality, lambda _: None)
        correction.consider("f", 2.0)
        records = serve(correction.of(believed), "casc", requests)
        return sum(record.variant == "small" for record in records) / len(records)

    assert share(0.5) < share(0.0)
