"""The room that a memory budget leaves for models, as it was when it was measured last, and what fits into it.

Measured on the loading thread; any thread may ask: what is read there is changed one whole value at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping

from router.placement import CLEARLY_LESS, Loadable, Spot, room_to_spare
from router.roster import Missing
from service.footprint import OWN, Footprint
from service.hidden_families import is_hidden
from service.in_memory import asked_for, taken_by_file
from service.measured_room import MeasuredFor, Room, Stock
from service.memory import Overhead
from service.opening_room import OpeningRoom
from service.piecewise import PiecewiseFamily
from service.pins import Pins
from service.smallest import Least, Smallest

MOST_RESERVED = 0.2
"""No more than that share of a budget is kept free for what batches and changes of models take for a moment."""


class ModelRoom:
    """The room for `pieces`, the families by name, on a machine of so many slots.

    `budget_bytes` and `pinned` may be changed. `allowed_bytes` is what models may take, `measured_for` what that was
    found for; `too_large` has the families that could not be loaded with all the room for themselves, and until there
    is clearly more; `is_futile` says that nothing is in memory, and nothing could be.
    """

    def __init__(
        self,
        pieces: Mapping[str, PiecewiseFamily],
        budget_bytes: int,
        pinned: Iterable[str],
        slots: int,
        footprint: Footprint = OWN,
    ) -> None:
        self.pieces = pieces
        self.budget_bytes = budget_bytes
        self.pinned = frozenset(pinned)
        self.allowed_bytes = 0.0
        self.measured_for = MeasuredFor(0, frozenset(), frozenset())
        self.is_futile = False
        self.too_large: set[str] = set()
        self._footprint = footprint
        self._slots = slots
        self._overhead = Overhead()
        self._pins = Pins()
        self._room = Room()
        self._idle: dict[str, int] = {}
        """Tokenizers that are open, of families of which nothing is loaded and nobody waits for."""
        self._opening = OpeningRoom()
        self._spare_bytes: float | None = None
        self._loadable: dict[str, dict[int, Loadable]] = {}
        self._known_smallest = Smallest()
        self._smallest: dict[str, Least] = {}

    def warm(self) -> None:
        """Before it is measured first: see `Footprint`. And the library of tokenizers, where families have some."""
        self._footprint.warm()
        any(piece.preparer.warm() for piece in list(self.pieces.values()))

    @property
    def kept(self) -> frozenset[str]:
        """Those of the pinned families that there is room for."""
        return self._pins.kept

    def holds(self) -> bool:
        """Whether what is resident now is within the budget."""
        return self._footprint.resident_bytes() <= self.budget_bytes

    def forget(self, name: str) -> None:
        """What a family could load is to be asked again."""
        self._loadable.pop(name, None)
        self._known_smallest.forget(name)

    def measure(self, cold: Container[str], now_s: float) -> Stock:
        """Find what models may take now; requests wait for those that are `cold`."""
        pieces = list(self.pieces.values())
        taken = taken_by_file(self.pieces)
        # A tokenizer counts with its family: else what fits would not fit beside its own, opened by who waits for it.
        opened = asked_for(self.pieces, taken)
        known = taken | {file: size for files in opened.values() for file, size in files.items()}
        resident = self._footprint.resident_bytes()
        overhead = self._overhead.observe(resident - self._footprint.kept_bytes, sum(known.values()), now_s)
        families = frozenset(piece.name for piece in pieces if not is_hidden(piece.name))
        # Budget and pinned may be changed meanwhile, from another thread.
        before, self.measured_for = self.measured_for, MeasuredFor(self.budget_bytes, self.pinned, families)
        if self.measured_for != before:
            self._spare_bytes = None
        batch_bytes = max((piece.batch_bytes for piece in pieces), default=0)
        budget_bytes = self.measured_for.budget_bytes
        reserve_bytes = min(self._footprint.reserve_bytes(self._slots, batch_bytes), MOST_RESERVED * budget_bytes)
        room_bytes = budget_bytes - overhead - reserve_bytes
        smallest = self._smallest = self._known_smallest.of(self.pieces, self.variants)
        alone = {name: least.alone_bytes for name, least in smallest.items()}
        self.too_large = self._larger_than(room_bytes, alone, cold)
        self.is_futile = bool(pieces) and not taken and not any(size <= room_bytes for size in alone.values())
        fitting = [self.pieces[name] for name in smallest if name not in self.too_large]
        opening_bytes = self._opening.room([(piece, self.variants(piece)) for piece in fitting], room_bytes)
        most_bytes = room_bytes - opening_bytes
        self._room = Room(room_bytes, most_bytes, self._overhead.passing_bytes)
        in_memory = {piece.name for piece in pieces if piece.paths}
        # Too large beside what opening it takes for a moment, which is not among the sizes.
        able = smallest.keys() - (self.too_large - in_memory)
        pinned = {name: smallest[name].sizes for name in self.measured_for.pinned & able}
        self._pins.find(pinned, in_memory, most_bytes)
        waiting = {file for name in opened.keys() - self.too_large if name in cold for file in opened[name]}
        self._idle = {file: size for file, size in known.items() if file not in taken and file not in waiting}
        self.allowed_bytes = most_bytes - sum(self._idle.values())
        # What batches take that run now is among the overhead already.
        at_most = budget_bytes - self._overhead.least_bytes - reserve_bytes
        taken_bytes = sum(taken.values())
        return Stock(taken_bytes, budget_bytes - overhead, resident <= budget_bytes and taken_bytes <= at_most)

    def spare_bytes(self) -> float:
        """What of it is to be left free for who waits next: see `router.placement.room_to_spare`."""
        least = [one.sizes for name, one in self._smallest.items() if name not in self.too_large]
        self._spare_bytes = room_to_spare(least, self.allowed_bytes, self._spare_bytes)
        return self._spare_bytes

    def keep_freed(self, *, something_goes: bool = False) -> None:
        """Let what lookup tables leave behind be kept for the next ones, in what is left free for who waits next.

        Where `something_goes` now, room may not be free yet.
        """
        most_bytes = self._spare_bytes or 0.0
        if not something_goes:
            free_bytes = self.allowed_bytes - sum(taken_by_file(self.pieces).values())
            most_bytes = max(0.0, min(most_bytes, free_bytes))
        self._footprint.keep_at_most(int(most_bytes))

    def _larger_than(self, room_bytes: float, alone: Mapping[str, int], cold: Container[str]) -> set[str]:
        """The families that could not be loaded with all the room for themselves, of which they need so much.

        Room goes up and down by some megabytes all the time: what was too large is so until there is clearly more, or
        requests wait for it.
        """
        known = {name for name in self.too_large if name not in cold}
        return {name for name, size in alone.items() if size > room_bytes * (CLEARLY_LESS if name in known else 1.0)}

    def variants(self, piece: PiecewiseFamily) -> dict[int, Loadable]:
        """What of a family can be loaded, the smallest first."""
        known = self._loadable.get(piece.name)
        if known is None:
            known = self._loadable[piece.name] = dict(piece.loadable())
        return known

    def offered(self, piece: PiecewiseFamily) -> Mapping[int, Loadable]:
        """Of these, what there is room to open."""
        known, too_large = self.variants(piece), self._opening.too_large
        if not too_large:
            return known
        return {index: loadable for index, loadable in known.items() if Spot(piece.name, index) not in too_large}

    def choice(self, piece: PiecewiseFamily, missing: Missing) -> int | None:
        """The variant to load for rows that wait: of those that will do, the one that takes least memory."""
        return _choice(piece, missing, self.offered(piece))

    def can_load(self, name: str, missing: Missing, promised: Container[Spot]) -> bool:
        """Whether rows that wait for this wait for something: what is to be loaded next, or fits at all."""
        piece = self.pieces.get(name)
        choice = None if piece is None else self.choice(piece, missing)
        if piece is None or choice is None:
            return False
        return Spot(name, choice) in promised or self.fits(piece, choice)

    def may_come_to_fit(self, name: str, missing: Missing) -> bool:
        """Whether rows that wait for this wait for something that there is room for without what comes and goes."""
        piece = self.pieces.get(name)
        choice = None if piece is None else _choice(piece, missing, self.variants(piece))
        return piece is not None and choice is not None and self._would_fit(piece, choice)

    def lacks_room(self, name: str, variant: str | None = None) -> bool:
        """Whether a family, or one variant of it, could not be loaded beside what is pinned.

        Without what comes and goes, and without what was believed before.
        """
        piece = self.pieces.get(name)
        if piece is None:
            return False
        first = next(iter(self.variants(piece)), None)
        index = first if variant is None else piece.loaded.family.index(variant)
        return index is not None and not self._would_fit(piece, index)

    def _would_fit(self, piece: PiecewiseFamily, variant: int) -> bool:
        alone_bytes, most_bytes, passing_bytes = self._room
        needed_bytes = piece.size_opening(piece.loaded.family.variants[variant].name)
        return (
            needed_bytes <= alone_bytes + passing_bytes
            and self._beside_pinned(piece, variant) <= most_bytes + passing_bytes
        )

    def fits(self, piece: PiecewiseFamily, variant: int) -> bool:
        """Whether a variant fits beside what is pinned."""
        return piece.name not in self.too_large and self._beside_pinned(piece, variant) <= self.allowed_bytes

    def left_bytes(self, piece: PiecewiseFamily) -> float:
        """What is left for a family beside what is pinned, with its tokenizer where that is open already."""
        own_bytes = sum(self._idle.get(file, 0) for file in piece.open_tokenizer)
        return self.allowed_bytes + own_bytes - sum(self._pinned_beside(piece).values())

    def _beside_pinned(self, piece: PiecewiseFamily, variant: int) -> int:
        """What a variant and all that is pinned take together."""
        return sum((piece.sizes(variant) | self._pinned_beside(piece)).values())

    def _pinned_beside(self, piece: PiecewiseFamily) -> dict[str, int]:
        """The files of what is pinned of other families, with their bytes."""
        found: dict[str, int] = {}
        for name in self.kept - {piece.name}:
            other = self.pieces.get(name)
            smallest = next(iter(self.variants(other)), None) if other is not None else None
            if other is not None and smallest is not None:
                found |= other.sizes(smallest)
        return found


def _choice(piece: PiecewiseFamily, missing: Missing, among: Collection[int]) -> int | None:
    if missing.pinned:
        return missing.variant if missing.variant in among else None
    variants = piece.believed
    do = (index for index in among if variants[index].quality >= missing.floor)
    return min(do, key=lambda index: (piece.size(variants[index].name), index), default=None)
