"""What the router believes of variants, kept in step with audits: a variant that drifts is worth what it lost less."""

from __future__ import annotations

from collections.abc import Callable

from router.agreement import corrected
from router.contract import Family
from service.live_quality import LiveQuality

STEP = 0.01
"""Smaller changes of what is lost are not worth new tables."""


class Correction:
    """Says by `changed` that a family is believed to be another than before; `of` says what."""

    def __init__(self, quality: LiveQuality, changed: Callable[[str], None]) -> None:
        self._quality = quality
        self._changed = changed
        self._lost: dict[str, dict[str, float]] = {}

    def consider(self, name: str, now: float) -> None:
        """Answers of the family of that name were compared."""
        lost, before = self._quality.lost(name, now), self._lost.get(name, {})
        same = lost.keys() == before.keys()
        if not same or any(abs(share - before[variant]) >= STEP for variant, share in lost.items()):
            self._lost[name] = lost
            self._changed(name)

    def of(self, family: Family) -> Family:
        """A family as it is believed now; `family` is as it was measured, with the variants that are loaded."""
        return corrected(family, self._lost.get(family.name, {}))
