"""Variants that broke, on their way back: struck by who knows of it, probed when it is time, and taken in again."""

from __future__ import annotations

from contextlib import ExitStack

from router.contract import Spell
from router.parts import Parts
from router.quarantine import Quarantine
from router.roster import Roster
from router.rule import Rule
from router.words import Reason


class Probation:
    """Has variants probed, and families know of who is in quarantine; it changes the other parts of the scheduler."""

    __slots__ = ("_parts", "_probes", "_roster", "_rule")

    def __init__(self, parts: Parts, roster: Roster, rule: Rule) -> None:
        self._parts = parts
        self._roster = roster
        self._rule = rule
        self._probes: list[Spell] = []
        """Due, and not yet reported: they survive a policy that raises in the same poll."""

    def strike(self, family: str, variant: str, reason: Reason, strikes: int, now: float, *, certain: bool) -> None:
        """See `Scheduler.strike`."""
        known = self._parts.families[family].family
        if not certain and not any(known.answers(other.name) for other in known.variants if other.name != variant):
            strikes = 1
        if self._quarantine.strike(family, known.revision, variant, reason, now, strikes=strikes):
            self._roster.quarantine(family, now)

    def probed(self, spell: Spell, fault: Reason | None, now: float) -> None:
        """See `Scheduler.probed`."""
        if self._quarantine.probed(spell, fault, now):
            # Even if the policy raises on that: it may be asked at once.
            if self._parts.slots.free:
                self._rule.wake_at = now
            self._roster.quarantine(spell.family, now)

    def note_due(self, now: float) -> None:
        """Note what is to be probed. A variant that is not in memory is tried when it is loaded: its spell is over."""
        with ExitStack() as steps:
            for spell in self._quarantine.due(now):
                family = self._parts.families[spell.family].family
                index = family.index(spell.variant)
                if index is not None and family.loaded is not None and index in family.loaded:
                    self._probes.append(spell)
                else:
                    steps.callback(self.probed, spell, None, now)

    def take(self) -> tuple[Spell, ...]:
        """What is to be probed, as noted since the last call."""
        probes, self._probes = tuple(self._probes), []
        return probes

    @property
    def _quarantine(self) -> Quarantine:
        return self._parts.quarantine
