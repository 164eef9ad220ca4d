"""A scheduler as those see it who do not drive it: what is served, on which terms, and how it stands."""

from __future__ import annotations

from collections.abc import Mapping

from router.contract import Hints, Spell
from router.family import Family, Share
from router.gate import Gate
from router.latency import LatencyModel
from router.parts import Parts
from router.quotas import Quota
from router.roster import Cold, Missing, Prepared, Roster


class Controlled:
    """Families, margins, quotas, shares and advice may change while requests flow; everything else is read."""

    def __init__(self, parts: Parts, roster: Roster, gate: Gate) -> None:
        self._parts = parts
        self._roster = roster
        self._gate = gate

    # What is changed from outside

    def set_quotas(self, named: Mapping[str, Quota], others: Quota, now: float) -> None:
        """Other quotas hold from now on, by tenant and for all others; what was used up stays so."""
        self._gate.quotas.change(named, others, now)

    def set_shares(self, tenants: Mapping[str, Share]) -> None:
        """Tenants may count on other shares from now on; see `Fairness`."""
        if self._gate.fairness is not None:
            self._gate.fairness.change(tenants)

    def prepare(self, family: Family, margin: float | None = None) -> Prepared:
        """What `replace` takes, for a new family, another revision, other variants loaded or another belief.

        It takes milliseconds, and any thread may call it. `margin` is the planning margin of a family that is new.
        """
        return self._roster.prepare(family, margin)

    def replace(self, prepared: Prepared, now: float) -> None:
        """Serve a family as prepared from now on; one that is not known is added. Batches that run go on.

        Rows that wait for what is no longer loaded wait for what is, or for a load. Raises `ValueError` for another
        revision while requests of the old one have no outcome.
        """
        self._roster.change(prepared, now)

    def remove(self, family: str, now: float) -> None:
        """Serve a family no longer; rows of it that wait get the answers they have, or none.

        Raises `ValueError` while a batch of it runs, `KeyError` for an unknown family.
        """
        self._roster.remove(family, now)

    def refuse_cold(self, family: str, missing: Missing, now: float) -> None:
        """Refuse what waits for this to be loaded: nothing that would do can be."""
        self._roster.refuse_cold(family, missing, now)

    def set_margin(self, family: str, margin: float | None) -> None:
        """Plan with this margin for a family from now on; None learns it."""
        self._roster.set_margin(family, margin)

    def set_hints(self, hints: Hints | None) -> None:
        """Advice of the slow outer loop; forgotten by itself after its age."""
        self._parts.viewer.set_hints(hints)

    # What observers read

    @property
    def queued_rows(self) -> int:
        """Rows that wait."""
        return self._parts.backlog.rows + self._parts.backlog.cold_rows

    @property
    def cold_rows(self) -> int:
        """Those of them that wait for a variant to be loaded."""
        return self._parts.backlog.cold_rows

    def cold(self) -> Mapping[str, Cold]:
        """What waits for a variant to be loaded, by family."""
        return self._roster.cold()

    def in_use(self, family: str) -> set[str]:
        """The variants of a family that batches run on or are about to: they must stay in memory."""
        return self._roster.in_use(family)

    def quickened(self, family: str) -> float:
        """See `LatencyModel.quickened`; 1 of a family that nobody knows."""
        known = self._parts.families.get(family)
        return 1.0 if known is None else known.latency.quickened

    def busy(self) -> frozenset[str]:
        """The families of which requests have no outcome yet."""
        return self._roster.busy()

    def is_busy(self, family: str) -> bool:
        """Whether a family has requests without an outcome, or batches that run."""
        return self._roster.is_busy(family)

    @property
    def unfinished(self) -> int:
        """Requests without an outcome."""
        return len(self._parts.ledger.pending)

    @property
    def busy_slots(self) -> int:
        """Slots that run a batch."""
        return self._parts.slots.busy

    @property
    def lost_slots(self) -> int:
        """Slots that are out of service."""
        return self._parts.slots.lost

    def quarantined(self, family: str) -> Mapping[str, Spell]:
        """The variants of a family that are in quarantine, with why and until when."""
        return self._parts.quarantine.spells(family)

    @property
    def families(self) -> dict[str, Family]:
        """Families by name."""
        return {name: state.family for name, state in list(self._parts.families.items())}

    def latency(self, family: str) -> LatencyModel:
        """The corrected latency model of a family. Raises `KeyError` for an unknown one."""
        return self._parts.families[family].latency

    def __repr__(self) -> str:
        parts = self._parts
        return f"<Scheduler {self.unfinished} unfinished, {len(parts.slots.free)} free slots, {parts.backlog!r}>"
