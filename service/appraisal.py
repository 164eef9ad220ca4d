"""What the families of a replica are worth in memory: what `router.placement` is asked with, and what it can promise.

Called on the loading thread and on the event loop: it reads what the other changes one whole value at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from heapq import nlargest
from time import monotonic

from router.latency import LatencyModel
from router.placement import Loadable, Placement, Spot, Step, Wanted
from router.popularity import Popularity
from router.roster import Cold, Missing
from service.lazy_preparer import LazyPreparer
from service.memory import Overhead, resident_bytes
from service.piecewise import PiecewiseFamily, is_table

FULL = 0.9
MOST_RIVALS = 32
"""Where memory is nearly full, so many families by popularity are considered beside those that are loaded or needed."""


class Appraisal:
    """Weighs `pieces`, the families by name, on a machine of so many slots.

    `budget_bytes` and `pinned` may be changed; `allowed_bytes` is what models could take when a plan was made last.
    """

    def __init__(
        self,
        pieces: Mapping[str, PiecewiseFamily],
        budget_bytes: int,
        pinned: Iterable[str],
        slots: int,
    ) -> None:
        self.budget_bytes = budget_bytes
        self.pinned = frozenset(pinned)
        self.popularity = Popularity()
        self.allowed_bytes = 0.0
        self._pieces = pieces
        self._slots = slots
        self._placement = Placement()
        self._overhead = Overhead()
        self._loadable: dict[str, dict[int, Loadable]] = {}
        self._row_s: dict[str, dict[int, float]] = {}

    def forget(self, name: str) -> None:
        """What a family could load is to be asked again."""
        self._loadable.pop(name, None)

    def plan(self, cold: Mapping[str, Cold], busy: frozenset[str]) -> tuple[Step, ...]:
        """What to do next, as far as can be seen now; `cold` has what waits for a load, `busy` who has requests."""
        pieces = dict(self._pieces)
        sizes = {file: size for piece in pieces.values() for file, size in piece.bytes.items()}
        held = [Spot(name, _index(piece, variant)) for name, piece in pieces.items() for variant in tuple(piece.paths)]
        taken = sum(sizes[file] for file in self.files_held())
        overhead = self._overhead.observe(resident_bytes(), taken)
        # Opening a model takes its file's bytes once more for a moment; a lookup table is read into its place.
        twice = max((size for file, size in sizes.items() if not is_table(file)), default=0)
        self.allowed_bytes = self.budget_bytes - overhead - twice
        now = monotonic()
        if taken > FULL * self.allowed_bytes:
            # Of hundreds of families most are not even thought of: the rest cannot take the place of what is there.
            asked = nlargest(MOST_RIVALS, pieces, key=lambda name: self.popularity.per_s(name, now))
            thought_of = {spot.family for spot in held} | cold.keys() | self.pinned | set(asked)
            pieces = {name: piece for name, piece in pieces.items() if name in thought_of}
        wanted = self._wanted(pieces, cold, busy, now)
        return self._placement.plan(wanted, sizes, held, (), self.allowed_bytes)

    def files_held(self) -> set[str]:
        """What is in memory, as `PiecewiseFamily.bytes` calls it: of lookup tables that families share, once."""
        pieces = list(self._pieces.values())
        return {file for piece in pieces for variant in tuple(piece.paths) for file in piece.keys(variant)}

    def bytes_by_family(self) -> dict[str, int]:
        """What each family is thought to take that has something in memory; what several share is shared out evenly."""
        taken = {
            name: {file: piece.bytes[file] for variant in tuple(piece.paths) for file in piece.keys(variant)}
            for name, piece in list(self._pieces.items())
        }
        users = Counter(file for files in taken.values() for file in files)
        return {
            name: sum(size // users[file] for file, size in files.items()) for name, files in taken.items() if files
        }

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

    def choice(self, piece: PiecewiseFamily, missing: Missing) -> int | None:
        """The variant to load for rows that wait: of those that will do, the one that takes least memory."""
        variants = piece.believed
        if missing.pinned:
            return missing.variant if missing.variant in self.variants(piece) else None
        do = (index for index in self.variants(piece) if variants[index].quality >= missing.floor)
        return min(do, key=lambda index: (piece.size(variants[index].name), index), default=None)

    def can_load(self, name: str, missing: Missing, promised: Container[Spot]) -> bool:
        """Whether rows that wait for this wait for something: what is to be loaded next, or fits at all."""
        piece = self._pieces.get(name)
        choice = None if piece is None else self.choice(piece, missing)
        if piece is None or choice is None:
            return False
        return Spot(name, choice) in promised or self._fits(piece, choice)

    def lack(self, name: str, missing: Missing) -> str:
        """Why rows wait for this in vain, for the log."""
        piece = self._pieces.get(name)
        choice = None if piece is None else self.choice(piece, missing)
        if piece is None or choice is None:
            return "no variant that may answer can be loaded"
        variant, left = piece.believed[choice].name, max(0.0, self.allowed_bytes)
        return f"{variant} takes {piece.size(variant) / 1e6:.1f} MB, the budget leaves {left / 1e6:.1f} MB for models"

    def unused(self, cold: Container[str], since_s: float) -> list[LazyPreparer]:
        """Tokenizers that requests have opened of families with nothing in memory, that nobody has asked for since."""
        asked_s = self.popularity.last_s
        return [
            piece.preparer
            for name, piece in self._pieces.items()
            if piece.preparer.holds_tokenizer and not piece.paths and name not in cold
            if asked_s.get(name, 0.0) <= since_s
        ]

    def _fits(self, piece: PiecewiseFamily, variant: int) -> bool:
        """Whether a variant fits beside what is pinned."""
        sizes = piece.sizes(variant)
        for name in self.pinned - {piece.name}:
            other = self._pieces.get(name)
            smallest = next(iter(self.variants(other)), None) if other is not None else None
            if other is not None and smallest is not None:
                sizes |= other.sizes(smallest)
        return sum(sizes.values()) <= self.allowed_bytes

    def _wanted(
        self, pieces: Mapping[str, PiecewiseFamily], cold: Mapping[str, Cold], busy: frozenset[str], now: float
    ) -> list[Wanted]:
        rates = {name: self.popularity.per_s(name, now) for name in pieces}
        offered = {name: self.variants(piece) for name, piece in pieces.items()}
        first_s = {name: min(self._row_s[name].values(), default=0.0) for name in pieces}
        spare = max(0.0, self._slots - sum(rates[name] * first_s[name] for name in pieces))
        found = []
        for name, piece in pieces.items():
            variants, per_s = offered[name], rates[name]
            if per_s > 0.0:
                # A better variant adds nothing to answers that there is no time to give with it.
                extra = {v: per_s * (self._row_s[name][v] - first_s[name]) for v in variants}
                shares = {v: min(1.0, spare / extra[v]) if extra[v] > 0.0 else 1.0 for v in variants}
                variants = {v: loadable._replace(gain=shares[v] * loadable.gain) for v, loadable in variants.items()}
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
