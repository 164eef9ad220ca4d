"""The room that a memory budget leaves free for what opening a model takes for a moment beside what it keeps."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from router.placement import CLEARLY_LESS, Spot
from service.piecewise import PiecewiseFamily


class OpeningRoom:
    """As much as any variant takes that could be loaded, so that no load, eviction or request changes what others may.

    Room goes up and down by some megabytes all the time: what it did not do for counts again when it clearly does.
    """

    def __init__(self) -> None:
        self._too_large: set[Spot] = set()

    def room(self, loadable: Iterable[tuple[PiecewiseFamily, Collection[int]]], room_bytes: float) -> int:
        """Of these families and variants, those count that all of `room_bytes` would do for; bytes."""
        most, too_large = 0, set[Spot]()
        for piece, sound in loadable:
            for variant, opening in piece.openings:
                if opening <= most:
                    break
                spot = Spot(piece.name, variant)
                needed = piece.size(piece.believed[variant].name) + opening
                if variant not in sound:
                    continue
                if needed > room_bytes * (CLEARLY_LESS if spot in self._too_large else 1.0):
                    too_large.add(spot)
                    continue
                most = opening
                break
        self._too_large = too_large
        return most
