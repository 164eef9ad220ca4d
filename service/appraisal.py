"""What the families of a replica are worth in memory: what `router.placement` is asked with, and what it can promise.

Called on the loading thread and on the event loop: it reads what the other changes one whole value at a time.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from heapq import nlargest
from math import inf
from time import monotonic
from typing import NamedTuple

from router.latency import LatencyModel
from router.placement import CLEARLY_LESS, Load, Loadable, Placement, Spot, Step, Wanted, room_to_spare
from router.popularity import Popularity
from router.roster import Cold, Missing
from service.footprint import OWN, Footprint
from service.hidden_families import is_hidden
from service.in_memory import asked_for, taken_by_file
from service.memory import Overhead
from service.opening_room import OpeningRoom
from service.piecewise import PiecewiseFamily
from service.smallest import Smallest

MOST_RIVALS = 32
"""So many families, the most popular, are considered beside those that are loaded or needed.

A plan is carried out up to its first load, and made anew then: others are considered when these are loaded.
"""
MOST_RESERVED = 0.2
"""No more than that share of a budget is kept free for what batches and changes of models take for a moment."""


class PlannedFor(NamedTuple):
    """What a plan was made with: the budget, who is pinned, and the families, without revisions on trial."""

    budget_bytes: int
    pinned: frozenset[str]
    families: frozenset[str]


class Appraisal:
    """Weighs `pieces`, the families by name, on a machine of so many slots.

    `budget_bytes` and `pinned` may be changed; `allowed_bytes` is what models could take when a plan was made last, and
    `planned_for` what that was made with.
    """

    def __init__(
        self,
        pieces: Mapping[str, PiecewiseFamily],
        budget_bytes: int,
        pinned: Iterable[str],
        slots: int,
        footprint: Footprint = OWN,
    ) -> None:
        self.budget_bytes = budget_bytes
        self.pinned = frozenset(pinned)
        self.popularity = Popularity()
        self.allowed_bytes = 0.0
        self.planned_for = PlannedFor(0, frozenset(), frozenset())
        self.is_futile = False
        """Whether nothing was in memory then, and nothing could be: there is no room, or all is refused."""
        self._footprint = footprint
        self._pieces = pieces
        self._slots = slots
        self._placement = Placement()
        self._overhead = Overhead()
        self.too_large: set[str] = set()
        """Families that could not be loaded with all the room for themselves, and until there is clearly more."""
        self._alone_bytes = self._most_bytes = inf
        self._opening = OpeningRoom()
        self._spare_bytes: float | None = None
        self._loadable: dict[str, dict[int, Loadable]] = {}
        self._smallest = Smallest()
        self._row_s: dict[str, dict[int, float]] = {}

    def warm(self) -> None:
        """Before the first plan: see `Footprint`."""
        self._footprint.warm()

    def holds(self) -> bool:
        """Whether what is resident now is within the budget."""
        return self._footprint.resident_bytes() <= self.budget_bytes

    def forget(self, name: str) -> None:
        """What a family could load is to be asked again."""
        self._loadable.pop(name, None)
        self._smallest.forget(name)

    def plan(self, cold: Mapping[str, Cold], busy: frozenset[str]) -> tuple[Step, ...]:
        """What to do next, as far as can be seen now; `cold` has what waits for a load, `busy` who has requests."""
        now = monotonic()
        taken = taken_by_file(self._pieces)
        # A tokenizer counts with its family: else what fits would not fit beside its own, opened by who waits for it.
        opened = asked_for(self._pieces, taken)
        known = taken | {file: size for files in opened.values() for file, size in files.items()}
        resident = self._footprint.resident_bytes()
        overhead = self._overhead.observe(resident, sum(known.values()))
        # It may be changed meanwhile, from another thread.
        families = frozenset(name for name in list(self._pieces) if not is_hidden(name))
        before, self.planned_for = self.planned_for, PlannedFor(self.budget_bytes, self.pinned, families)
        batch_bytes = max((piece.batch_bytes for piece in list(self._pieces.values())), default=0)
        budget_bytes = self.planned_for.budget_bytes
        reserve_bytes = min(self._footprint.reserve_bytes(self._slots, batch_bytes), MOST_RESERVED * budget_bytes)
        room_bytes = budget_bytes - overhead - reserve_bytes
        smallest = self._smallest.of(self._pieces, self.variants)
        alone = {name: least.alone_bytes for name, least in smallest.items()}
        self.too_large = self._larger_than(room_bytes, alone, cold)
        self.is_futile = bool(self._pieces) and not taken and not any(size <= room_bytes for size in alone.values())
        fitting = [self._pieces[name] for name in smallest if name not in self.too_large]
        loadable = [(piece, self.variants(piece)) for piece in fitting]
        self._alone_bytes = room_bytes
        self._most_bytes = room_bytes - self._opening.room(loadable, room_bytes)
        waiting = {file for name in cold if name not in self.too_large for file in opened.get(name, ())}
        idle_bytes = sum(size for file, size in known.items() if file not in taken and file not in waiting)
        self.allowed_bytes = self._most_bytes - idle_bytes
        needed, rivals = self._thought_of(cold, now)
        pieces = needed | rivals
        sizes = {file: size for piece in pieces.values() for file, size in piece.bytes.items()}
        held = [Spot(name, _index(piece, variant)) for name, piece in needed.items() for variant in tuple(piece.paths)]
        wanted = self._wanted(pieces, cold, busy, now)
        least = [one.sizes for name, one in smallest.items() if name not in self.too_large]
        known_bytes = self._spare_bytes if self.planned_for == before else None
        self._spare_bytes = room_to_spare(least, self.allowed_bytes, known_bytes)
        steps = self._placement.plan(wanted, sizes, held, (), self.allowed_bytes, self._spare_bytes)
        if not held or any(isinstance(step, Load) for step in steps):
            return steps
        # Nothing comes, so none of it is to be opened, but where room is kept for the next one. What batches take that
        # run now is among the overhead already.
        at_most = budget_bytes - self._overhead.least_bytes - reserve_bytes
        if not self._spare_bytes and resident <= budget_bytes and sum(taken.values()) <= at_most:
            return ()
        return self._but_for_the_last(steps, held, budget_bytes - overhead)

    def _but_for_the_last(
        self, steps: tuple[Step, ...], held: Sequence[Spot], at_rest_bytes: float
    ) -> tuple[Step, ...]:
        """A plan that leaves nothing in memory is carried out but for the smallest variant, where that fits at rest.

        There is no room to load another one beside it, but then there need not be: without it nobody is served at all.
        """
        if set(held).difference(step.spot for step in steps):
            return steps
        sizes = {spot: sum(self._pieces[spot.family].sizes(spot.variant).values()) for spot in held}
        last = min(sizes, key=lambda spot: sizes[spot])
        return tuple(step for step in steps if step.spot != last) if sizes[last] <= at_rest_bytes else steps

    def _larger_than(self, room_bytes: float, alone: Mapping[str, int], cold: Container[str]) -> set[str]:
        """The families that could not be loaded with all the room for themselves, of which they need so much.

        Room goes up and down by some megabytes all the time: what was too large is so until there is clearly more, or
        requests wait for it.
        """
        known = {name for name in self.too_large if name not in cold}
        return {name for name, size in alone.items() if size > room_bytes * (CLEARLY_LESS if name in known else 1.0)}

    def _thought_of(
        self, cold: Container[str], now: float
    ) -> tuple[dict[str, PiecewiseFamily], dict[str, PiecewiseFamily]]:
        """The families that have something in memory or need it, and who may be next: others are not planned for."""
        needed: dict[str, PiecewiseFamily] = {}
        others: dict[str, PiecewiseFamily] = {}
        for name, piece in list(self._pieces.items()):
            if piece.paths or name in self.pinned:
                needed[name] = piece
            elif name not in self.too_large:
                (needed if name in cold else others)[name] = piece
        rivals = nlargest(MOST_RIVALS, others, key=lambda name: self.popularity.per_s(name, now))
        return needed, {name: others[name] for name in rivals}

    def variants(self, piece: PiecewiseFamily) -> dict[int, Loadable]:
        """What of a family can be loaded, the smallest first."""
        known = self._loadable.get(piece.name)
        if known is None:
            exact = LatencyModel(piece.loaded.family)
            middle = len(piece.loaded.family.sizes) // 2
            known = dict(piece.loadable())
            self._row_s[piece.name] = {variant: exact.full_row_s(variant, middle) for variant in known}
            self._loadable[piece.name] = known
        return known

    def _offered(self, piece: PiecewiseFamily) -> Mapping[int, Loadable]:
        """Of these, what there is room to open."""
        known, too_large = self.variants(piece), self._opening.too_large
        if not too_large:
            return known
        return {index: loadable for index, loadable in known.items() if Spot(piece.name, index) not in too_large}

    def choice(self, piece: PiecewiseFamily, missing: Missing) -> int | None:
        """The variant to load for rows that wait: of those that will do, the one that takes least memory."""
        variants, offered = piece.believed, self._offered(piece)
        if missing.pinned:
            return missing.variant if missing.variant in offered else None
        do = (index for index in offered if variants[index].quality >= missing.floor)
        return min(do, key=lambda index: (piece.size(variants[index].name), index), default=None)

    def can_load(self, name: str, missing: Missing, promised: Container[Spot]) -> bool:
        """Whether rows that wait for this wait for something: what is to be loaded next, or fits at all."""
        piece = self._pieces.get(name)
        choice = None if piece is None else self.choice(piece, missing)
        if piece is None or choice is None:
            return False
        return Spot(name, choice) in promised or self.fits(piece, choice)

    def lacks_room(self, name: str, variant: str | None = None) -> bool:
        """Whether a family, or one variant of it, could not be loaded beside what is pinned. Any thread may ask.

        By the room of the last plan, without what was believed before.
        """
        piece = self._pieces.get(name)
        if piece is None:
            return False
        first = next(iter(self.variants(piece)), None)
        index = first if variant is None else piece.loaded.family.index(variant)
        if index is None:
            return False
        opening_bytes = piece.opening_bytes(piece.loaded.family.variants[index].name)
        needed_bytes = sum(piece.sizes(index).values()) + opening_bytes
        return needed_bytes > self._alone_bytes or self._beside_pinned(piece, index) > self._most_bytes

    def fits(self, piece: PiecewiseFamily, variant: int) -> bool:
        """Whether a variant fits beside what is pinned, as room was when a plan was made last."""
        return piece.name not in self.too_large and self._beside_pinned(piece, variant) <= self.allowed_bytes

    def left_bytes(self, piece: PiecewiseFamily) -> float:
        """What is left for a family beside what is pinned, as it was when a plan was made last."""
        return self.allowed_bytes - sum(self._pinned_beside(piece).values())

    def _beside_pinned(self, piece: PiecewiseFamily, variant: int) -> int:
        """What a variant and all that is pinned take together."""
        return sum((piece.sizes(variant) | self._pinned_beside(piece)).values())

    def _pinned_beside(self, piece: PiecewiseFamily) -> dict[str, int]:
        """The files of what is pinned of other families, with their bytes."""
        found: dict[str, int] = {}
        for name in self.pinned - {piece.name}:
            other = self._pieces.get(name)
            smallest = next(iter(self.variants(other)), None) if other is not None else None
            if other is not None and smallest is not None:
                found |= other.sizes(smallest)
        return found

    def _wanted(
        self, pieces: Mapping[str, PiecewiseFamily], cold: Mapping[str, Cold], busy: frozenset[str], now: float
    ) -> list[Wanted]:
        rates = {name: self.popularity.per_s(name, now) for name in pieces}
        offered = {name: self._offered(piece) for name, piece in pieces.items()}
        first_s = {name: min(self._row_s[name].values(), default=0.0) for name in pieces}
        spare = max(0.0, self._slots - sum(rates[name] * first_s[name] for name in pieces))
        found = []
        for name, piece in pieces.items():
            variants, per_s = offered[name], rates[name]
            if per_s > 0.0 and variants:
                row_s = self._row_s[name]
                if per_s * (max(row_s.values()) - first_s[name]) > spare:
                    # A better variant adds nothing to answers that there is no time to give with it.
                    extra = {v: per_s * (row_s[v] - first_s[name]) for v in variants}
                    shares = {v: min(1.0, spare / extra[v]) if extra[v] > 0.0 else 1.0 for v in variants}
                    variants = {
                        v: loadable._replace(gain=shares[v] * loadable.gain) for v, loadable in variants.items()
                    }
            waits = cold.get(name)
            choices = [] if waits is None else [self.choice(piece, missing) for missing in waits.missing]
            since_s = {} if waits is None else {v: waits.since_s for v in choices if v is not None}
            last_s = self.popularity.last_s.get(name, 0.0)
            found.append(Wanted(name, per_s, variants, since_s, name in busy, name in self.pinned, last_s))
        return found


def _index(piece: PiecewiseFamily, variant: str) -> int:
    index = piece.loaded.family.index(variant)
    assert index is not None, "what is in memory belongs to its family"
    return index
