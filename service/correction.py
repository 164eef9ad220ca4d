"""What the router believes of variants, kept in step with audits: a variant that drifts is worth what it lost less."""

from __future__ import annotations

from collections.abc import Callable

from router.agreement import corrected
from router.contract import Family
from service.live_quality import LiveQuality

STEP = 0.01
"""Smaller changes of what is lost are not worth new tables."""


class Correction:
    """Calls `replace` with a family as it is believed now, whenever that has changed.

    `measured` gives the family of that name as it was measured, with the variants that are loaded now.
    """

    def __init__(
        self, quality: LiveQuality, measured: Callable[[str], Family | None], replace: Callable[[Family], None]
    ) -> None:
        self._quality = quality
        self._measured = measured
        self._replace = replace
        self._lost: dict[str, dict[str, float]] = {}

    def consider(self, name: str, now: float) -> None:
        """Answers of a family were compared."""
        lost, before = self._quality.lost(name, now), self._lost.get(name, {})
        same = lost.keys() == before.keys()
        if same and all(abs(share - before[variant]) < STEP for variant, share in lost.items()):
            return
        family = self._measured(name)
        if family is not None:
            self._lost[name] = lost
            self._replace(corrected(family, lost))

    def of(self, family: Family) -> Family:
        """A measured family as it is believed now: for who changes what of it is loaded."""
        return corrected(family, self._lost.get(family.name, {}))
