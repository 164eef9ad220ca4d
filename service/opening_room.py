"""The room that a memory budget leaves free for what opening a model takes for a moment beside what it keeps."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from router.placement import CLEARLY_LESS, Spot
from service.piecewise import PiecewiseFamily


class OpeningRoom:
    """As much as any variant takes that could be loaded, so that no load, eviction or request changes what others may.

    `too_large` has those that are not to be loaded: all the room would not do to open them. Room goes up and down by
    some megabytes all the time: what it did not do for counts again when it clearly does.
    """

    def __init__(self) -> None:
        self.too_large: frozenset[Spot] = frozenset()

    def room(self, loadable: Iterable[tuple[PiecewiseFamily, Collection[int]]], room_bytes: float) -> int:
        """For these families and variants, of which some may be too large for `room_bytes`; bytes.

        Who takes less to be opened than what is left for another one is not looked at: where it is too large beside
        that, it does not fit into what models may take either.
        """
        most, too_large, known = 0, set[Spot](), self.too_large
        for piece, sound in loadable:
            names = piece.loaded.family.variants
            for variant, opening in piece.openings:
                spot = Spot(piece.name, variant)
                if opening <= most:
                    if not known:
                        # Those that follow take no more.
                        break
                    if spot in known:
                        too_large.add(spot)
                    continue
                if variant not in sound:
                    continue
                needed = piece.size_opening(names[variant].name)
                if needed > room_bytes * (CLEARLY_LESS if spot in known else 1.0):
                    too_large.add(spot)
                else:
                    most = opening
        self.too_large = frozenset(too_large)
        return most
