"""The smallest variants of families, of which hundreds are looked at in each plan: each again where it changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from service.piecewise import PiecewiseFamily


class Least(NamedTuple):
    """The files of a family's smallest variant, with their bytes, and what it takes while that is opened.

    Of when the sizes of the family had been `revised` so often.
    """

    revised: int
    sizes: Mapping[str, int]
    alone_bytes: int


class Smallest:
    """Remembers them by family, until what could be loaded of one is to be asked again."""

    def __init__(self) -> None:
        self._known: dict[str, Least] = {}

    def forget(self, name: str) -> None:
        """What a family could load is another than before."""
        self._known.pop(name, None)

    def of(
        self, pieces: Mapping[str, PiecewiseFamily], variants: Callable[[PiecewiseFamily], Iterable[int]]
    ) -> dict[str, Least]:
        """Those of the families that have one: `variants` gives by index what can be loaded of a family, it first."""
        found = {}
        for name, piece in list(pieces.items()):
            known = self._known.get(name)
            if known is None or known.revised != piece.revised:
                first = next(iter(variants(piece)), None)
                if first is None:
                    continue
                alone_bytes = piece.size_opening(piece.loaded.family.variants[first].name)
                known = self._known[name] = Least(piece.revised, piece.sizes(first), alone_bytes)
            found[name] = known
        return found
