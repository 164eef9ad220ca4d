"""Variants that broke in a way that may be the request's doing: they go on answering while they are tried.

An exception or an answer that is none says as much of the request as of the variant. A variant on suspicion is probed
at once, and once a second at most: no number of such requests costs more than that, or keeps it from others.
"""

from __future__ import annotations

from collections.abc import Collection

from router.contract import Spell
from router.request import NEVER
from router.words import Reason

PAUSE_S = 1.0
"""A variant is tried no sooner than so long after it was sound, or could not be tried, however often it is doubted."""


class _Suspect:
    """`spell` has number and time of its probe, `wanted` says that it has not begun, `runs` that it has not ended."""

    __slots__ = ("ended_s", "runs", "spell", "wanted")

    def __init__(self, spell: Spell) -> None:
        self.spell = spell
        self.wanted, self.runs = True, False
        self.ended_s = -NEVER


class Suspicion:
    """The variants on suspicion, by family and name, and when each was tried last. Bounded as `Quarantine` is."""

    __slots__ = ("_number", "_suspects", "next_s")

    def __init__(self) -> None:
        self._suspects: dict[tuple[str, str], _Suspect] = {}
        self._number = 0
        self.next_s = NEVER
        """When `due` has something next."""

    def suspect(self, family: str, revision: str, variant: str, reason: Reason, now: float) -> None:
        """The variant broke so. What runs or is about to answers for that as well."""
        key = family, variant
        known = self._suspects.get(key)
        if known is not None and (known.wanted or known.runs):
            return
        self._number += 1
        due_s = now if known is None else max(now, known.ended_s + PAUSE_S)
        self._suspects[key] = _Suspect(Spell(self._number, family, revision, variant, reason, 0, due_s))
        self.next_s = min(self.next_s, due_s)

    def due(self, now: float) -> list[Spell]:
        """The probes that are due, each once until `probed`: as spells without a strike."""
        if now < self.next_s:
            return []
        wanted = [suspect for suspect in self._suspects.values() if suspect.wanted]
        found = [suspect for suspect in wanted if suspect.spell.until_s <= now]
        for suspect in found:
            suspect.wanted, suspect.runs = False, True
        self.next_s = min((suspect.spell.until_s for suspect in wanted if suspect.wanted), default=NEVER)
        return [suspect.spell for suspect in found]

    def probed(self, spell: Spell, now: float, *, tried: bool) -> bool:
        """The probe of that spell has ended; where it was not `tried` it is wanted again. Whether it counts."""
        suspect = self._suspects.get((spell.family, spell.variant))
        if suspect is None or suspect.spell.number != spell.number or not suspect.runs:
            return False
        suspect.runs = False
        suspect.ended_s = now
        if not tried:
            suspect.wanted = True
            suspect.spell = suspect.spell._replace(until_s=now + PAUSE_S)
            self.next_s = min(self.next_s, now + PAUSE_S)
        return tried

    def drop(self, family: str, variant: str) -> None:
        """The variant is in quarantine: it is tried for that."""
        self._suspects.pop((family, variant), None)

    def keep(self, family: str, variants: Collection[str]) -> None:
        """See `Quarantine.keep`."""
        self._suspects = {key: s for key, s in self._suspects.items() if key[0] != family or key[1] in variants}
