"""Who waits for a load in vain, and who for room that may come in a moment: of that, requests are not to make work."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

from router.placement import Spot
from router.roster import Cold, Missing
from router.words import WhenCold
from service.memory import PASSES_S
from service.model_room import ModelRoom
from service.piecewise import PiecewiseFamily

HOPES_S = PASSES_S + 0.5
"""So long, requests wait for room that batches or a change of models take for a moment; others would be told at once
that there is none."""
MOST_HOPING_ROWS = 256
"""So many rows of a family may wait so; where there are more they are refused, for others wait for loads as well."""


class Hopes:
    """Of the rows that waited for loads when a plan was made last."""

    def __init__(self, room: ModelRoom) -> None:
        self._room = room
        self._hoping: frozenset[str] | None = None

    def in_vain(
        self, cold: Mapping[str, Cold], promised: Container[Spot], now_s: float
    ) -> Iterator[tuple[str, Missing]]:
        """By family, what rows wait for that cannot be loaded: it is broken, or larger than the room that may come.

        `promised` is loaded next.
        """
        hoping: set[str] = set()
        is_all = True
        for name, waits in cold.items():
            hopes = now_s - waits.since_s < HOPES_S and waits.rows <= MOST_HOPING_ROWS
            for missing in waits.missing if waits.rows else ():
                if self._room.can_load(name, missing, promised):
                    is_all = False
                elif hopes and self._room.may_come_to_fit(name, missing):
                    hoping.add(name)
                else:
                    yield name, missing
        self._hoping = frozenset(hoping) if hoping and is_all else None

    def is_news(self, piece: PiecewiseFamily | None) -> bool:
        """Whether another request for a family may change what is to be done.

        It does not where all that waits does so for room that may come: that is looked at again soon anyway.
        """
        if self._hoping is None:
            return True
        waits = piece is not None and not piece.paths and piece.loaded.family.when_cold is WhenCold.WAIT
        return waits and piece is not None and piece.name not in self._hoping
