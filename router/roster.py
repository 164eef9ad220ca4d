"""Which families there are and what of them is loaded, and what a change of that means for rows that wait.

What variants are believed to be worth may change as well; whoever waits for at least so much is judged by that anew.

A change is made in two steps: `prepare`, on any thread, makes whatever takes milliseconds; the rest is quick enough for
the thread of requests. What is learnt of latencies outlives a change of what is loaded. Rows that nothing loaded may
answer are cold: no policy sees them, and they wait until something that may answer them is loaded, which they are then
answered by even if that is late.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from router.admission import lowest_variant, missing_variant, why_nobody
from router.backlog import LaneKey
from router.family import Family
from router.latency import LatencyModel
from router.parts import Parts
from router.pending import Pending
from router.request import NEVER, Item, Request
from router.rule import Rule
from router.viewer import Known
from router.words import Outcome, Reason, WhenCold

COLD_SHARE = 0.5
"""Cold rows take no more than this share of the backlog: they must not shut out those that can be answered."""


class Prepared(NamedTuple):
    """A family as it is to be from now on, and the tables of the policy for it (None: it has none).

    `margin` is the planning margin where the family is new; later it is changed by `Roster.set_margin` alone.
    """

    family: Family
    latency: LatencyModel
    tables: object | None
    margin: float | None = None


class Missing(NamedTuple):
    """What rows wait for: a variant (index) that callers pinned, or any of at least the quality `floor`.

    Then `variant` is the cheapest such.
    """

    variant: int
    floor: float = 0.0
    pinned: bool = False


class Cold(NamedTuple):
    """Rows of one family that wait for a load: how many, since when, and for what."""

    rows: int
    since_s: float
    missing: tuple[Missing, ...]


class Roster:
    """Changes families and margins, which the scheduler and its views read, and moves the rows concerned."""

    __slots__ = ("_parts", "_rule")

    def __init__(self, parts: Parts, rule: Rule) -> None:
        self._parts = parts
        self._rule = rule

    def prepare(self, family: Family, margin: float | None) -> Prepared:
        """What `change` needs. Reads only what never changes in place, so any thread may call it."""
        known = self._parts.families.get(family.name)
        same = known is not None and _answers_alike(known.family, family)
        latency = known.latency if known is not None and same else LatencyModel(family, margin, self._parts.paces)
        return Prepared(family, latency, self._rule.tables(family, latency), margin)

    def change(self, prepared: Prepared, now: float) -> None:
        """From now on the family is the prepared one; of the same revision, what is in quarantine stays there.

        Raises `ValueError` where its variants are others and requests of the old ones have no outcome yet.
        """
        name = prepared.family.name
        known = self._parts.families.get(name)
        if known is not None and not _answers_alike(known.family, prepared.family) and self.is_busy(name):
            raise ValueError(f"family {name}: requests of revision {known.family.revision} have no outcome yet")
        if known is not None:
            same = known.family.revision == prepared.family.revision
            self._parts.quarantine.keep(name, [v.name for v in prepared.family.variants] if same else ())
        family, tables = self._as_held(prepared.family), prepared.tables
        if family is not prepared.family:
            tables = self._rule.tables(family, prepared.latency)
        self._parts.margins.setdefault(name, prepared.margin)
        self._put(Known(family, prepared.latency), now)
        self._rule.adopt(name, tables)
        if self._parts.slots.free:
            self._rule.wake_at = now

    def quarantine(self, name: str, now: float) -> None:
        """Other variants of a family are in quarantine: rows go elsewhere.

        Whatever the policy raises, it is so from then on.
        """
        known = self._parts.families.get(name)
        if known is not None:
            known = known._replace(family=self._as_held(known.family))
            self._put(known, now)
            self._rule.relearn(known)

    def remove(self, name: str, now: float) -> None:
        """The family is no more; rows of it that wait get what answers they have, or none.

        Raises `ValueError` while a batch of it runs, `KeyError` for an unknown family.
        """
        if self.in_use(name):
            raise ValueError(f"family {name}: a batch of it runs")
        known = self._parts.families[name]
        for pending in [p for p in self._parts.ledger.pending.values() if p.request.family == name]:
            if pending.unanswered:
                self._parts.ledger.abandon(pending, Outcome.REJECTED_INFEASIBLE, Reason.NOT_LOADED, now)
            else:
                self._parts.ledger.close(pending, Reason.NOT_LOADED, now)
        self._parts.demand.relabel(known.family, known.family.with_loaded(()))
        del self._parts.families[name]
        self._parts.quarantine.keep(name, ())
        self._parts.margins.pop(name, None)
        self._rule.adopt(name, None)

    def set_margin(self, name: str, margin: float | None) -> None:
        """Plan with another margin for this family from now on; None learns it."""
        self._parts.margins[name] = margin

    def in_use(self, name: str) -> set[str]:
        """The variants of a family that batches run on or are about to; they must not be taken from memory."""
        return {dispatch.variant for dispatch in self._parts.slots.running if dispatch.family == name}

    def busy(self) -> frozenset[str]:
        """The families of which requests have no outcome yet."""
        return frozenset(pending.request.family for pending in self._parts.ledger.pending.values())

    def is_busy(self, name: str) -> bool:
        """Whether a family has requests without an outcome, or batches that run."""
        return bool(self.in_use(name)) or any(p.request.family == name for p in self._parts.ledger.pending.values())

    def is_cold(self, family: Family, request: Request) -> bool:
        """Whether something that may answer the request could be loaded and is to be waited for.

        Nothing is loaded for an audit.
        """
        return self.missing(family, request) is not None

    def missing(self, family: Family, request: Request) -> int | None:
        """Index of the variant that the request is to wait for where nothing loaded may answer it; `None`: for none."""
        waits = not request.audit and family.when_cold is WhenCold.WAIT
        return missing_variant(family, request) if waits else None

    def enter_cold(self, family: Family, request: Request, by_s: float) -> Pending:
        """A new request waits for something to be loaded."""
        missing = missing_variant(family, request)
        assert missing is not None, "asked after `is_cold`"
        pending = self._parts.ledger.open(request)
        pending.cold = True
        self._parts.waiting.enter(pending, ~missing, by_s, background=False)
        return pending

    def cold_room(self, backlog_rows: int) -> float:
        """How many more rows may wait for a load."""
        return COLD_SHARE * backlog_rows - self._parts.backlog.cold_rows

    def cold(self) -> Mapping[str, Cold]:
        """What waits for a load, by family."""
        found: dict[str, Cold] = {}
        for key, items in self._parts.backlog.cold():
            since_s = min(self._parts.ledger.pending[item.request_id].request.arrival_s for item in items)
            before = found.get(key.family, Cold(0, since_s, ()))
            wants = Missing(~key.lowest, max(item.floor for item in items), key.pinned >= 0)
            missing = (*before.missing, wants)
            found[key.family] = Cold(before.rows + len(items), min(since_s, before.since_s), missing)
        return found

    def refuse_cold(self, name: str, missing: Missing, now: float) -> None:
        """What waits for this waits in vain: nothing that would do can be loaded."""
        for key, items in self._parts.backlog.of(name):
            if key.lowest == ~missing.variant and (key.pinned >= 0) == missing.pinned:
                for item in items:
                    self._refuse(item, now)

    def _move_rows(self, family: Family, now: float) -> None:
        hints = self._parts.viewer.fresh_hints(now)
        for key, items in self._parts.backlog.of(family.name):
            if key.at >= 0 and key.at not in family.ladder[:-1]:
                # No better answer is to be had any more.
                for item in items:
                    pending = self._pending(item)
                    if pending is not None:
                        self._parts.waiting.leave(pending, key, item)
                        if pending.settled():
                            self._parts.ledger.answer(pending, now)
                continue
            for item in items:
                pending = self._pending(item)
                if pending is None or (key.alone >= 0 and key.lowest >= 0 and family.is_loaded(key.pinned)):
                    # Ended, or given to that one because another broke; one that waited for its load goes on below.
                    continue
                broke = pending.broken_by(item.row)
                left = family if broke is None else family.without(broke)
                lowest = lowest_variant(left, pending.request, hints)
                if lowest is None and key.at < 0:
                    self._cool(left, pending, key, item, now)
                elif lowest is not None and lowest != key.lowest:
                    self._relabel(family, pending, key, item, lowest, now)

    def _pending(self, item: Item) -> Pending | None:
        """The request of a row that still waits; another row may have ended it meanwhile."""
        pending = self._parts.ledger.pending.get(item.request_id)
        return pending if pending is not None and item.row in pending.queued else None

    def _cool(self, family: Family, pending: Pending, key: LaneKey, item: Item, now: float) -> None:
        """Nothing loaded may answer this row any more."""
        missing = missing_variant(family, pending.request)
        if missing is None or (key.lowest >= 0 and not self.is_cold(family, pending.request)):
            self._refuse(item, now)
        elif key.lowest != ~missing:
            pending.cold, pending.expected = True, False
            self._relabel(family, pending, key, item, ~missing, now)

    def _relabel(self, family: Family, pending: Pending, key: LaneKey, item: Item, lowest: int, now: float) -> None:
        """The cheapest variant that may answer a row is another one."""
        broke = pending.broken_by(item.row)
        aside = broke is not None and self._parts.families[family.name].family.answers(broke)
        pinned = -1 if pending.request.pinned is None and not aside else max(lowest, ~lowest)
        by_s, background = item.deadline_s, key.background
        if key.lowest < 0 <= lowest:
            latency = self._parts.families[family.name].latency
            background = by_s == NEVER
            if not background and now + latency.planned_s(lowest, 1, item.size_class) >= by_s:
                # Its own deadline is lost to the load. It is in as much of a hurry as if it had come now.
                by_s = now + item.slo_s
        # Whoever keeps a variant keeps it no longer: the choice is another one.
        to = key._replace(pinned=pinned, lowest=lowest, background=background, held=False)
        self._parts.waiting.move(pending, key, item, to, item._replace(lowest=lowest, deadline_s=by_s))

    def _refuse(self, item: Item, now: float) -> None:
        pending = self._pending(item)
        if pending is not None:
            known = self._parts.families[pending.request.family]
            reason = why_nobody(known.family, pending.request)
            self._parts.ledger.abandon(pending, Outcome.REJECTED_INFEASIBLE, reason, now)

    def _put(self, known: Known, now: float) -> None:
        family = known.family
        before = self._parts.families.get(family.name)
        self._parts.families[family.name] = known
        if before is not None:
            self._parts.demand.relabel(before.family, family)
            self._move_rows(family, now)

    def _as_held(self, family: Family) -> Family:
        """The same with what is in quarantine now."""
        held = self._parts.quarantine.held(family.name)
        indices = tuple(index for index, variant in enumerate(family.variants) if variant.name in held)
        return family if indices == family.quarantined else family.with_quarantined(indices)


def _answers_alike(one: Family, other: Family) -> bool:
    """Whether they differ in nothing but what is loaded and how good variants are believed to be."""
    return _outline(one) == _outline(other)


def _outline(family: Family) -> tuple[object, ...]:
    variants = [(variant.name, variant.stages, variant.latency, variant.elsewhere) for variant in family.variants]
    return family.revision, family.sizes, family.max_batch, variants
