"""What to have in memory: an ordered list of evictions and loads that never needs more than the budget on the way.

The value of a loaded variant is the quality that it adds to answers, a second: the arrivals of its family times what
it is better than the next cheaper rung. What is worth most per byte is in memory (the greedy rule of the knapsack
problem; Dantzig, 1957). In order:

1. What is pinned, and what is being loaded, stays.
2. What requests wait for comes next, the longest waiting first: they can be answered by nothing else.
3. The smallest variants of families whose requests wait or run stay.
4. All else by value per byte. The smallest variant of a family comes before its larger ones, and goes after them.

Of the budget, `spare_bytes` are left free by what is there for its value alone: who waits next is loaded into them at
once, and what makes room again is evicted after that, not before.

A rule that swaps equals would load for ever. What is loaded counts `stay` times its value, so that something else must
be better by that much to take its place; a plan that was carried out, made anew, is empty. Arrivals are remembered with
one time constant, so that quiet families keep their order while nobody asks.

Files that variants share (stages of one network) are counted once. What is evicted is no more than is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

SELDOM_PER_S = 1.0 / 3600.0
"""Families of which nothing is known are taken to be asked for once an hour: where there is room, they are loaded."""

BY_VALUE = 3
"""The last of the classes above."""
MOST_TO_SPARE = 0.1
"""No more than this share of what models may take is left free for the next one."""
CLEARLY_LESS = 0.95
"""Rooms move by some megabytes all the time. What was too large for one is so until it takes no more than this share
of it; what fitted does until this share of it no longer would.
"""


class Loadable(NamedTuple):
    """A variant: the files it needs, each once, and the quality (0 to 1) that it adds to answers of those before it.

    The first variant of a family adds the quality of its answer.
    """

    files: tuple[str, ...]
    gain: float


def gains(qualities: Mapping[int, float], first: int) -> dict[int, float]:
    """What each variant adds to the better of `first` and those before it; `first` adds the quality of its answer.

    `qualities` is by index, in the order of the family. One that is no better adds nothing.
    """
    best = qualities[first]
    found = {first: best}
    for index, quality in qualities.items():
        if index != first:
            found[index] = max(0.0, quality - best)
            best = max(best, quality)
    return found


def room_to_spare(
    smallest: Sequence[Mapping[str, int]], budget_bytes: float, before_bytes: float | None = None
) -> float:
    """The `spare_bytes` for families of which these are the files of the smallest variants, with their bytes.

    Room for the largest family of those that take no more than a share of the budget; nothing where all families fit.
    What is loaded has no say in that: each load would change what the one before was decided by. What it was before
    has: it stays so where the budget is just a little less.
    """
    files: dict[str, int] = {}
    for sizes in smallest:
        files |= sizes
    if sum(files.values()) * (CLEARLY_LESS if before_bytes == 0.0 else 1.0) <= budget_bytes:
        return 0.0
    least, known_bytes = [sum(sizes.values()) for sizes in smallest], before_bytes or 0.0
    most_bytes = MOST_TO_SPARE * budget_bytes
    return max(
        (size for size in least if size * (CLEARLY_LESS if size <= known_bytes else 1.0) <= most_bytes), default=0.0
    )


class Wanted(NamedTuple):
    """A family, its variants worth loading by index, the one that takes least first, and how much it is wanted.

    `since_s` has what requests wait for that nothing loaded may answer: the variant's index and since when. `in_use`
    says that requests of it wait or run; `pinned` that its smallest variant stays in memory for ever.
    """

    name: str
    per_s: float
    variants: Mapping[int, Loadable]
    since_s: Mapping[int, float]
    in_use: bool = False
    pinned: bool = False
    last_s: float = 0.0

    @property
    def smallest(self) -> int:
        """The variant that comes before the others and goes after them; -1 where there is none."""
        return next(iter(self.variants), -1)


class Spot(NamedTuple):
    """A variant of a family."""

    family: str
    variant: int


class Load(NamedTuple):
    """Load this."""

    spot: Spot


class Evict(NamedTuple):
    """Drop this."""

    spot: Spot


Step = Load | Evict


@dataclass(frozen=True, slots=True)
class Placement:
    """The rule and its parameters.

    `stay` (at least 1) is how much better per byte something must be to take the place of what is loaded. `order` may
    be `recency` instead of `value`: then the families asked for last are in memory (LRU), all their variants alike.
    """

    stay: float = 1.3
    order: Literal["value", "recency"] = "value"

    def plan(
        self,
        wanted: Sequence[Wanted],
        sizes: Mapping[str, int],
        loaded: Iterable[Spot],
        loading: Iterable[Spot],
        budget_bytes: float,
        spare_bytes: float = 0.0,
    ) -> tuple[Step, ...]:
        """The steps from what is loaded to what is to be, in order. `sizes` has the bytes of each file.

        What is `loading` takes its bytes already and is not touched. Where what must stay is over the budget, nothing
        is loaded, and nothing that must stay is evicted.
        """
        families = {family.name: family for family in wanted}
        held = [spot for spot in loaded if spot.family in families and spot.variant in families[spot.family].variants]
        ranks = dict(self._ranks(wanted, frozenset(held), frozenset(loading), sizes))
        order = sorted(ranks, key=lambda spot: (ranks[spot], spot))
        target = self._target(order, ranks, families, sizes, budget_bytes, spare_bytes)
        files = _Files(families, sizes, (*held, *loading))
        steps: list[Step] = []
        # The smallest of a family goes last, whatever else it is worth.
        gone, there = set(held) - set(target), {*held, *loading}
        spare = [spot for spot in reversed(order) if spot in gone]
        spare.sort(key=lambda spot: spot.variant == families[spot.family].smallest)
        coming = [spot for spot in target if spot not in there]
        needed = [spot for spot in coming if ranks[spot][0] < BY_VALUE]
        valued = [spot for spot in coming if ranks[spot][0] >= BY_VALUE]
        for spots, limit in ((needed, budget_bytes), (valued, budget_bytes - spare_bytes)):
            for spot in (None, *spots):
                while spare and files.bytes_with(spot) > limit:
                    evicted = spare.pop(0)
                    files.drop(evicted)
                    steps.append(Evict(evicted))
                if spot is not None and files.bytes_with(spot) <= limit:
                    files.take(spot)
                    steps.append(Load(spot))
        return tuple(steps)

    def _ranks(
        self, wanted: Sequence[Wanted], held: frozenset[Spot], loading: frozenset[Spot], sizes: Mapping[str, int]
    ) -> Iterable[tuple[Spot, tuple[int, float]]]:
        """Every variant with its place in the order of who comes first: a class, and what counts within it."""
        for family in wanted:
            smallest, name = family.smallest, family.name
            for variant, loadable in family.variants.items():
                spot = Spot(name, variant)
                if spot in loading or (family.pinned and variant == smallest):
                    yield spot, (0, 0.0)
                elif variant in family.since_s:
                    yield spot, (1, family.since_s[variant])
                elif family.in_use and variant == smallest and spot in held:
                    yield spot, (2, 0.0)
                else:
                    yield spot, (BY_VALUE, -self._worth(family, loadable, sizes) * (self.stay if spot in held else 1.0))

    def _worth(self, family: Wanted, loadable: Loadable, sizes: Mapping[str, int]) -> float:
        """Value a second and byte; by recency, later is more."""
        if self.order == "recency":
            return max(family.last_s, 0.0)
        value = (family.per_s + SELDOM_PER_S) * max(loadable.gain, 0.0)
        return value / max(1, sum([sizes.get(file, 0) for file in loadable.files]))

    def _target(
        self,
        order: Sequence[Spot],
        ranks: Mapping[Spot, tuple[int, float]],
        families: Mapping[str, Wanted],
        sizes: Mapping[str, int],
        budget_bytes: float,
        spare_bytes: float,
    ) -> list[Spot]:
        """What is to be in memory: whoever comes first and still fits."""
        chosen = _Files(families, sizes, ())
        target: list[Spot] = []
        warm: set[str] = set()
        held_back: dict[str, list[Spot]] = {}
        first = {name: family.smallest for name, family in families.items()}
        for spot in order:
            # Larger variants wait for the smallest of their family, but for those that are needed themselves.
            smallest = spot.variant == first[spot.family]
            if not smallest and spot.family not in warm and ranks[spot][0] > 1:
                held_back.setdefault(spot.family, []).append(spot)
                continue
            limit = budget_bytes if ranks[spot][0] < BY_VALUE else budget_bytes - spare_bytes
            if ranks[spot][0] > 0 and chosen.bytes_with(spot) > limit:
                continue
            if smallest:
                warm.add(spot.family)
            for taken in (spot, *(held_back.pop(spot.family, ()) if smallest else ())):
                if taken is spot or chosen.bytes_with(taken) <= budget_bytes - spare_bytes:
                    chosen.take(taken)
                    target.append(taken)
        return target


class _Files:
    """The files of some variants and the bytes they take together, each counted once."""

    def __init__(self, families: Mapping[str, Wanted], sizes: Mapping[str, int], spots: Iterable[Spot]) -> None:
        self._families = families
        self._sizes = sizes
        self._users: dict[str, int] = {}
        self._bytes = 0
        for spot in spots:
            self.take(spot)

    def take(self, spot: Spot) -> None:
        for file in self._of(spot):
            self._users[file] = self._users.get(file, 0) + 1
            if self._users[file] == 1:
                self._bytes += self._sizes.get(file, 0)

    def drop(self, spot: Spot) -> None:
        for file in self._of(spot):
            self._users[file] -= 1
            if not self._users[file]:
                del self._users[file]
                self._bytes -= self._sizes.get(file, 0)

    def bytes_with(self, spot: Spot | None) -> int:
        """Bytes of what is there, and of this one too."""
        if spot is None:
            return self._bytes
        return self._bytes + sum([self._sizes.get(file, 0) for file in self._of(spot) if file not in self._users])

    def _of(self, spot: Spot) -> tuple[str, ...]:
        family = self._families.get(spot.family)
        loadable = family.variants.get(spot.variant) if family is not None else None
        return () if loadable is None else loadable.files
