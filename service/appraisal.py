"""What the families of a replica are worth in memory: what `router.placement` is asked with.

Called on the loading thread; `popularity` is told of requests on the event loop.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from heapq import nlargest
from time import monotonic

from router.latency import LatencyModel
from router.placement import Load, Placement, Spot, Step, Wanted
from router.popularity import Popularity
from router.roster import Cold
from service.model_room import ModelRoom
from service.piecewise import PiecewiseFamily

MOST_RIVALS = 32
"""So many families, the most popular, are considered beside those that are loaded or needed.

A plan is carried out up to its first load, and made anew then: others are considered when these are loaded.
"""


class Appraisal:
    """Weighs the families that share a room, on a machine of so many slots."""

    def __init__(self, room: ModelRoom, slots: int) -> None:
        self.room = room
        self.popularity = Popularity()
        self._slots = slots
        self._placement = Placement()
        self._row_s: dict[str, dict[int, float]] = {}

    def forget(self, name: str) -> None:
        """What a family could load is to be asked again."""
        self._row_s.pop(name, None)
        self.room.forget(name)

    def plan(self, cold: Mapping[str, Cold], busy: frozenset[str], now_s: float | None = None) -> tuple[Step, ...]:
        """What to do next, as far as can be seen now; `cold` has what waits for a load, `busy` who has requests.

        `now_s` is the time, by default that of the clock.
        """
        now = monotonic() if now_s is None else now_s
        room, pieces = self.room, self.room.pieces
        stock = room.measure(cold, now)
        at_once = self._at_once(cold, room.allowed_bytes - stock.taken_bytes)
        if at_once is not None:
            return (Load(at_once),)
        needed, rivals = self._thought_of(cold, now)
        thought_of = needed | rivals
        sizes = {file: size for piece in thought_of.values() for file, size in piece.bytes.items()}
        held = [Spot(name, _index(piece, variant)) for name, piece in needed.items() for variant in tuple(piece.paths)]
        wanted = self._wanted(thought_of, cold, busy, now)
        spare_bytes = room.spare_bytes()
        steps = self._placement.plan(wanted, sizes, held, (), room.allowed_bytes, spare_bytes)
        if not held or any(isinstance(step, Load) for step in steps):
            return steps
        if not spare_bytes and stock.holds:
            # Nothing comes, so none of it is to be opened, but where room is kept for the next one.
            return ()
        if set(held).difference(step.spot for step in steps):
            return steps
        # A plan that leaves nothing in memory is carried out but for the smallest variant, where that fits at rest.
        # There is no room to load another one beside it, but then there need not be: without it nobody is served.
        taken = {spot: sum(pieces[spot.family].sizes(spot.variant).values()) for spot in held}
        last = min(taken, key=lambda spot: taken[spot])
        return tuple(step for step in steps if step.spot != last) if taken[last] <= stock.at_rest_bytes else steps

    def _at_once(self, cold: Mapping[str, Cold], free_bytes: float) -> Spot | None:
        """What a whole plan would begin with, where that is plain, at a fifth of its cost.

        That is the case where nothing has to go, and nothing that is pinned is missing: then it is what is waited for
        longest. Whoever waits is not kept waiting for what hundreds of others are worth.
        """
        if not cold:
            return None
        room, pieces = self.room, self.room.pieces
        waited_for = [
            (waits.since_s, Spot(name, choice))
            for name, waits in cold.items()
            if name in pieces and name not in room.too_large
            for missing in waits.missing
            if (choice := room.choice(pieces[name], missing)) is not None
        ]
        pinned = [pieces[name] for name in room.kept if name in pieces]
        if not waited_for or not all(self._has_its_smallest(piece) for piece in pinned):
            return None
        spot = min(waited_for)[1]
        piece = pieces[spot.family]
        is_held = piece.loaded.family.variants[spot.variant].name in piece.paths
        return spot if not is_held and sum(piece.sizes(spot.variant).values()) <= free_bytes else None

    def _has_its_smallest(self, piece: PiecewiseFamily) -> bool:
        smallest = next(iter(self.room.offered(piece)), None)
        return smallest is None or piece.loaded.family.variants[smallest].name in piece.paths

    def _thought_of(
        self, cold: Container[str], now: float
    ) -> tuple[dict[str, PiecewiseFamily], dict[str, PiecewiseFamily]]:
        """The families that have something in memory or need it, and who may be next: others are not planned for."""
        room = self.room
        needed: dict[str, PiecewiseFamily] = {}
        others: dict[str, PiecewiseFamily] = {}
        for name, piece in list(room.pieces.items()):
            if piece.paths or name in room.kept:
                needed[name] = piece
            elif name not in room.too_large:
                (needed if name in cold else others)[name] = piece
        rivals = nlargest(MOST_RIVALS, others, key=lambda name: self.popularity.per_s(name, now))
        return needed, {name: others[name] for name in rivals}

    def _seconds(self, piece: PiecewiseFamily) -> dict[int, float]:
        """What a row of full batches takes by each variant that can be loaded."""
        known = self._row_s.get(piece.name)
        if known is None:
            exact = LatencyModel(piece.loaded.family)
            middle = len(piece.loaded.family.sizes) // 2
            known = {variant: exact.full_row_s(variant, middle) for variant in self.room.variants(piece)}
            self._row_s[piece.name] = known
        return known

    def _wanted(
        self, pieces: Mapping[str, PiecewiseFamily], cold: Mapping[str, Cold], busy: frozenset[str], now: float
    ) -> Sequence[Wanted]:
        kept, choice = self.room.kept, self.room.choice
        rates = {name: self.popularity.per_s(name, now) for name in pieces}
        offered = {name: self.room.offered(piece) for name, piece in pieces.items()}
        seconds = {name: self._seconds(piece) for name, piece in pieces.items()}
        first_s = {name: min(row_s.values(), default=0.0) for name, row_s in seconds.items()}
        spare = max(0.0, self._slots - sum(rates[name] * first_s[name] for name in pieces))
        found = []
        for name, piece in pieces.items():
            variants, per_s = offered[name], rates[name]
            if per_s > 0.0 and variants:
                row_s = seconds[name]
                if per_s * (max(row_s.values()) - first_s[name]) > spare:
                    # A better variant adds nothing to answers that there is no time to give with it.
                    extra = {v: per_s * (row_s[v] - first_s[name]) for v in variants}
                    shares = {v: min(1.0, spare / extra[v]) if extra[v] > 0.0 else 1.0 for v in variants}
                    variants = {
                        v: loadable._replace(gain=shares[v] * loadable.gain) for v, loadable in variants.items()
                    }
            waits = cold.get(name)
            choices = [] if waits is None else [choice(piece, missing) for missing in waits.missing]
            since_s = {} if waits is None else {v: waits.since_s for v in choices if v is not None}
            last_s = self.popularity.last_s.get(name, 0.0)
            found.append(Wanted(name, per_s, variants, since_s, name in busy, name in kept, last_s))
        return found


def _index(piece: PiecewiseFamily, variant: str) -> int:
    index = piece.loaded.family.index(variant)
    assert index is not None, "what is in memory belongs to its family"
    return index
