"""What is said of the room that a memory budget leaves for models. As it was when it was measured last."""

from __future__ import annotations

from router.placement import CLEARLY_LESS
from router.roster import Missing
from service.hidden_families import is_hidden
from service.log_words import LEAVES, NO_ROOM
from service.memory import first_of, named
from service.model_room import ModelRoom
from service.piecewise import PiecewiseFamily

TOO_LARGE = "does not fit into the memory budget"
"""After the name of a family or a variant."""


def room_said(room: ModelRoom) -> str:
    """What the budget leaves for models and which families do not fit into that, for the log: see `LEAVES`."""
    lacking = {
        name: _needed(room, piece, piece.believed[first].name)
        for name, piece in list(room.pieces.items())
        for first in tuple(room.variants(piece))[:1]
        if not is_hidden(name) and not piece.paths and not room.fits(piece, first)
    }
    said = f"{LEAVES}{max(0.0, room.allowed_bytes) / 1e6:.1f} MB for models"
    if not lacking:
        return said
    families = f"{len(lacking)} famil{'ies' if len(lacking) > 1 else 'y'}"
    pinned = sorted(room.pinned & lacking.keys())
    of_these = f"; pinned of these: {named(pinned)}" if pinned else ""
    return f"{said}: {NO_ROOM} of {families}: {first_of(lacking)}{of_these}"


def lack_said(room: ModelRoom, piece: PiecewiseFamily | None, missing: Missing) -> str:
    """Why rows wait for this of a family in vain, for the log; `None` is one that is not served."""
    choice = None if piece is None else room.choice(piece, missing)
    if piece is None or choice is None:
        return "no variant that may answer can be loaded"
    variant, left = piece.believed[choice].name, max(0.0, room.left_bytes(piece))
    needed = _needed(room, piece, variant)
    beside = " beside what is pinned" if room.kept - {piece.name} else ""
    return f"{variant} takes {needed / 1e6:.1f} MB, the budget leaves {left / 1e6:.1f} MB for models{beside}"


def _needed(room: ModelRoom, piece: PiecewiseFamily, variant: str) -> int:
    """What is said to be wanted of what models may take, from which the room to open them is left out already."""
    if piece.name not in room.too_large:
        return piece.size(variant)
    needed = piece.size_opening(variant)
    # What was too large once is so until there is clearly more.
    return needed if needed > room.allowed_bytes else int(needed / CLEARLY_LESS)
