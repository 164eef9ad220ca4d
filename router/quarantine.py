"""Variants that broke: out of everybody's way for a while, probed then, and back once they answer again.

1. A variant that takes its executor with it is struck: nobody is answered by it until its spell is over.
2. When a spell's time is up the variant is probed, on rows that no request depends on. Only a sound answer ends the
   spell; a fault is one more strike, and the next spell lasts twice as long.
3. An exception or an answer that is none may be the request's doing: the variant is on suspicion (`router.suspicion`),
   and goes on answering while it is probed. It is struck if it breaks under that.
4. The end of memory may be anybody's doing: the system ends whom it likes. Nobody is answered by the variant, but it is
   probed at once, and a sound answer takes the strike back. So no caller keeps a variant away from the others.
5. Who crashed or hung is not tried before a second is over, and then ever more seldom: each time costs an executor.
   It is forgiven once it has been sound for ten times its last spell, and at least a minute.
6. A request that takes a second variant's executor as well is doubted more than they are, as in 4. Nobody is tried for
   a doubt sooner than a second after the last time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from router.contract import Spell
from router.request import NEVER
from router.suspicion import PAUSE_S, Suspicion
from router.words import Reason

HARD = frozenset({Reason.CRASHED, Reason.HUNG, Reason.OUT_OF_MEMORY, Reason.KILLED})
"""Faults that cost an executor."""
FAULTS = HARD | {Reason.EXECUTOR_ERROR, Reason.WRONG_OUTPUT}
"""Faults of a variant. A batch may also fail by no fault of its own."""

DOUBTED = frozenset({Reason.OUT_OF_MEMORY, Reason.KILLED})
"""Those of them that say nothing of whose doing they are."""

FORGIVEN_AFTER = 10.0
FORGIVEN_S = 60.0
MOST_DOUBLED = 32
"""However many strikes there are, numbers stay finite."""


class BackOff(NamedTuple):
    """How long the first spell lasts, seconds, and the longest."""

    first_s: float
    most_s: float

    def seconds(self, strikes: int) -> float:
        """How long the spell lasts that so many strikes (at least 1) begin."""
        return min(self.first_s * 2.0 ** min(strikes - 1, MOST_DOUBLED), self.most_s)


QUICK = BackOff(0.1, 10.0)
SLOW = BackOff(1.0, 300.0)


def back_off(reason: Reason) -> BackOff:
    """How long who broke so stays away."""
    return SLOW if reason in HARD else QUICK


def sound_s(reason: Reason, strikes: int) -> float:
    """For how long a variant must be sound after its spell of so many strikes (at least 1) to be forgiven them."""
    return max(FORGIVEN_S, FORGIVEN_AFTER * back_off(reason).seconds(strikes))


class _Case:
    """What is remembered of one variant. `doubted` says that its last strike may be somebody else's fault."""

    __slots__ = ("doubted", "is_held", "is_probed", "released_s", "spell")

    def __init__(self, spell: Spell, released_s: float) -> None:
        self.spell = spell
        self.is_held = True
        self.is_probed = self.doubted = False
        self.released_s = released_s


class Quarantine:
    """The variants that broke, by family and name. Bounded by the variants that there are: see `keep`."""

    __slots__ = ("_cases", "_held", "_spells", "_suspicion", "_told", "next_s")

    def __init__(self) -> None:
        self._cases: dict[tuple[str, str], _Case] = {}
        self._held: dict[str, frozenset[str]] = {}
        self._suspicion = Suspicion()
        self._spells = 0
        self._told: list[Spell] = []
        self.next_s = NEVER
        """When `due` has something next, or earlier."""

    def held(self, family: str) -> frozenset[str]:
        """The variants of a family that answer nobody now."""
        return self._held.get(family, frozenset())

    def holds(self, family: str, variant: str) -> bool:
        """Whether this variant answers nobody now."""
        return bool(self._held) and variant in self.held(family)

    def spells(self, family: str) -> Mapping[str, Spell]:
        """The spells of a family's variants that have not ended, by variant."""
        held = {variant: self._cases.get((family, variant)) for variant in self.held(family)}
        return {variant: case.spell for variant, case in held.items() if case is not None}

    def retry_after_s(self, family: str, now: float) -> float:
        """After how many seconds the first variant in quarantine is probed; 0.0 where none is, or that is now."""
        return max(0.0, min((spell.until_s for spell in self.spells(family).values()), default=now) - now)

    def strike(
        self, family: str, revision: str, variant: str, reason: Reason, now: float, *, strikes: int | None = None
    ) -> bool:
        """The variant broke. Whether that begins a spell: one that it has already is not made longer.

        What costs no executor begins none: the variant is on suspicion by it. `strikes` is how many it has had by now,
        where that is known from elsewhere.
        """
        case = self._cases.get((family, variant))
        if case is not None and case.is_held:
            return False
        if reason not in HARD:
            self._suspicion.suspect(family, revision, variant, reason, now)
            self.next_s = min(self.next_s, self._suspicion.next_s)
            return False
        self._begin(family, revision, variant, reason, self._before(case, now) + 1 if strikes is None else strikes, now)
        if reason in DOUBTED:
            self.doubt(family, variant, now)
        return True

    def doubt(self, family: str, variant: str, now: float) -> None:
        """What broke the variant last may be another's doing: it is probed soon; an answer takes the strike back."""
        case = self._cases.get((family, variant))
        if case is None or case.doubted:
            return
        case.doubted = True
        if not case.is_held:
            case.spell = case.spell._replace(strikes=case.spell.strikes - 1)
        elif not case.is_probed:
            self._wait(case, min(case.spell.until_s, max(now, case.released_s + PAUSE_S)))

    def due(self, now: float) -> tuple[Spell, ...]:
        """What is to be probed: spells whose time is up, and those on suspicion, as spells without a strike.

        Each is named once, until `probed` is called for it.
        """
        if now < self.next_s:
            return ()
        found = self._suspicion.due(now)
        self.next_s = self._suspicion.next_s
        for case in self._cases.values():
            if not case.is_held or case.is_probed:
                continue
            if case.spell.until_s <= now:
                case.is_probed = True
                found.append(case.spell)
            else:
                self.next_s = min(self.next_s, case.spell.until_s)
        return tuple(found)

    def probed(self, spell: Spell, fault: Reason | None, now: float) -> bool:
        """A probe has ended, with a sound answer or a fault. Whether other variants are held by that.

        What is no fault of the variant says nothing of it: it is probed again after a pause. A spell that is not known
        any more is ignored.
        """
        tried = fault is None or fault in FAULTS
        case = self._cases.get((spell.family, spell.variant))
        if not spell.strikes:
            counts = self._suspicion.probed(spell, now, tried=tried)
            self.next_s = min(self.next_s, self._suspicion.next_s)
            if not counts or fault is None:
                return False
            strikes = self._before(case, now) + 1
            self._begin(spell.family, spell.revision, spell.variant, fault, strikes, now)
            return True
        if case is None or not case.is_held or case.spell.number != spell.number:
            return False
        if not tried:
            case.is_probed = False
            self._wait(case, now + PAUSE_S)
            return False
        if fault is not None:
            self._begin(spell.family, spell.revision, spell.variant, fault, case.spell.strikes + 1, now)
            return False
        strikes = case.spell.strikes - case.doubted
        case.spell = case.spell._replace(strikes=strikes, over=True)
        case.is_held = False
        case.released_s = now
        self._hold()
        self._told.append(case.spell)
        return True

    def keep(self, family: str, variants: Collection[str]) -> None:
        """Forget what is known of other variants of a family: it has been replaced, or is gone."""
        self._suspicion.keep(family, variants)
        if any(key[0] == family and key[1] not in variants for key in self._cases):
            self._cases = {k: case for k, case in self._cases.items() if k[0] != family or k[1] in variants}
            self._hold()

    def take(self) -> tuple[Spell, ...]:
        """The spells that began, were made longer or ended since the last call."""
        if not self._told:
            return ()
        told, self._told = self._told, []
        return tuple(told)

    def _begin(self, family: str, revision: str, variant: str, reason: Reason, strikes: int, now: float) -> None:
        self._spells += 1
        until_s = now + back_off(reason).seconds(strikes)
        spell = Spell(self._spells, family, revision, variant, reason, strikes, until_s)
        before = self._cases.get((family, variant))
        self._cases[family, variant] = _Case(spell, -NEVER if before is None else before.released_s)
        self._suspicion.drop(family, variant)
        self.next_s = min(self.next_s, until_s)
        self._hold()
        self._told.append(spell)

    def _hold(self) -> None:
        held: dict[str, set[str]] = {}
        for (family, variant), case in self._cases.items():
            if case.is_held:
                held.setdefault(family, set()).add(variant)
        self._held = {family: frozenset(variants) for family, variants in held.items()}

    def _wait(self, case: _Case, until_s: float) -> None:
        case.spell = case.spell._replace(until_s=until_s)
        self.next_s = min(self.next_s, until_s)

    def _before(self, case: _Case | None, now: float) -> int:
        """The strikes that a variant comes with that is not held; none where it has been sound for long enough."""
        if case is None or now - case.released_s >= sound_s(case.spell.reason, max(case.spell.strikes, 1)):
            return 0
        return case.spell.strikes
