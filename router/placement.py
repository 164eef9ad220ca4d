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

from collections import deque
from collections.abc import Iterable, Mapping, Sequence, Set
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


@dataclass(frozen=True, slots=True)
class Load:
    """Load this."""

    spot: Spot


@dataclass(frozen=True, slots=True)
class Evict:
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
        asked = {family.name: family for family in wanted}
        held = {spot for spot in loaded if spot.family in asked and spot.variant in asked[spot.family].variants}
        moving = set(loading)
        order = sorted(self._places(wanted, held, moving, sizes))
        target = _target(order, sizes, budget_bytes, spare_bytes)
        files = _Files(sizes)
        for place in order:
            if place.spot in held or place.spot in moving:
                files.take(place.files)
        steps: list[Step] = []
        # The smallest of a family goes last, whatever else it is worth.
        leaving = [place for place in reversed(order) if place.spot in held and place.spot not in target]
        going = deque(sorted(leaving, key=lambda place: place.is_smallest))
        coming = [place for place in target.values() if place.spot not in held and place.spot not in moving]
        needed = [place for place in coming if place.rank < BY_VALUE]
        valued = [place for place in coming if place.rank >= BY_VALUE]

        def make_room(own: Sequence[str], limit: float) -> None:
            while going and files.bytes_with(own) > limit:
                evicted = going.popleft()
                files.drop(evicted.files)
                steps.append(Evict(evicted.spot))

        for places, limit in ((needed, budget_bytes), (valued, budget_bytes - spare_bytes)):
            make_room((), limit)
            for place in places:
                make_room(place.files, limit)
                if files.bytes_with(place.files) <= limit:
                    files.take(place.files)
                    steps.append(Load(place.spot))
        return tuple(steps)

    def _places(
        self, wanted: Sequence[Wanted], held: Set[Spot], loading: Set[Spot], sizes: Mapping[str, int]
    ) -> Iterable[_Place]:
        """Every variant with its place in the order of who comes first."""
        is_by_value, stay, size_of = self.order == "value", self.stay, sizes.get
        for family in wanted:
            name, since_s, smallest = family.name, family.since_s, family.smallest
            per_s, last_s = family.per_s + SELDOM_PER_S, max(family.last_s, 0.0)
            for variant, (files, gain) in family.variants.items():
                spot, first = Spot(name, variant), variant == smallest
                is_held = spot in held
                if spot in loading or (first and family.pinned):
                    yield _Place(0, 0.0, spot, first, files)
                elif variant in since_s:
                    yield _Place(1, since_s[variant], spot, first, files)
                elif first and family.in_use and is_held:
                    yield _Place(2, 0.0, spot, first, files)
                else:
                    # Value a second and byte; by recency, later is more.
                    worth = last_s
                    if is_by_value:
                        worth = per_s * max(gain, 0.0) / max(1, sum([size_of(file, 0) for file in files]))
                    yield _Place(BY_VALUE, -worth * stay if is_held else -worth, spot, first, files)


class _Place(NamedTuple):
    """A variant in the order of who comes first: by class, then by what counts within it (less comes first), then by
    name.
    """

    rank: int
    within: float
    spot: Spot
    is_smallest: bool
    files: tuple[str, ...]


def _target(
    order: Sequence[_Place], sizes: Mapping[str, int], budget_bytes: float, spare_bytes: float
) -> dict[Spot, _Place]:
    """What is to be in memory, in order: whoever comes first and still fits."""
    chosen = _Files(sizes)
    target: dict[Spot, _Place] = {}
    warm: set[str] = set()
    held_back: dict[str, list[_Place]] = {}
    valued_bytes = budget_bytes - spare_bytes
    for place in order:
        rank, _, spot, is_smallest, files = place
        # Larger variants wait for the smallest of their family, but for those that are needed themselves.
        if not is_smallest and rank > 1 and spot.family not in warm:
            held_back.setdefault(spot.family, []).append(place)
            continue
        if rank > 0 and chosen.bytes_with(files) > (budget_bytes if rank < BY_VALUE else valued_bytes):
            continue
        chosen.take(files)
        target[spot] = place
        if is_smallest:
            warm.add(spot.family)
            for larger in held_back.pop(spot.family, ()):
                if chosen.bytes_with(larger.files) <= valued_bytes:
                    chosen.take(larger.files)
                    target[larger.spot] = larger
    return target


class _Files:
    """The files of some variants and the bytes they take together, each counted once."""

    __slots__ = ("_bytes", "_sizes", "_users")

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes = sizes
        self._users: dict[str, int] = {}
        self._bytes = 0

    def take(self, files: Sequence[str]) -> None:
        """Those of one more."""
        users = self._users
        for file in files:
            if file in users:
                users[file] += 1
            else:
                users[file] = 1
                self._bytes += self._sizes.get(file, 0)

    def drop(self, files: Sequence[str]) -> None:
        """Those of one less."""
        for file in files:
            self._users[file] -= 1
            if not self._users[file]:
                del self._users[file]
                self._bytes -= self._sizes.get(file, 0)

    def bytes_with(self, files: Sequence[str]) -> int:
        """Bytes of what is there, and of these too."""
        users, total = self._users, self._bytes
        for file in files:
            if file not in users:
                total += self._sizes.get(file, 0)
        return total
