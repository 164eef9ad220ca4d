"""The one step in which scheduler, gateway and memory budget change from one revision of a family to another."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from service.oip.errors import ProtocolError
from service.piecewise import PiecewiseFamily
from service.residency import Residency
from variants.repository import RepositoryError
from variants.session import ModelLoadError

if TYPE_CHECKING:
    from service.gateway import Gateway

logger = logging.getLogger("pareto.repository")


async def exchange(gateway: Gateway, name: str, piece: PiecewiseFamily | None, swap: Callable[[float], object]) -> None:
    """Call `swap`, which changes scheduler and gateway in one step of the event loop, and tell the residency.

    Raises `ProtocolError` 503 where requests of the family are not at their end.
    """

    def change(now: float) -> None:
        try:
            swap(now)
        except ValueError as error:
            logger.error("%s", error)
            raise busy(name) from error

    tell = partial(gateway.tell, change)
    if gateway.residency is None:
        tell()
    else:
        await gateway.residency.exchange(name, piece, tell)


async def open_smallest(piece: PiecewiseFamily, residency: Residency) -> None:
    """Have the smallest variant that can be opened in memory before the family takes the old one's place.

    Raises `RepositoryError` where there is none; what served before serves on then.
    """
    variants = piece.loaded.family.variants
    while (first := next(iter(piece.loadable()), None)) is not None:
        variant = variants[first].name
        try:
            opened = await residency.moves.in_thread(partial(piece.open, variant))
        except (ModelLoadError, RepositoryError):
            # It is refused by name from now on, and logged.
            if variant not in piece.refused:
                raise
            continue
        piece.hold(variant, opened)
        return
    raise RepositoryError(f"none of its variants can be loaded ({'; '.join(piece.refused.values())})")


def busy(name: str) -> ProtocolError:
    """The refusal of a change for which the family's last batch would have to end."""
    return ProtocolError(503, f"{name}: a batch still runs after the drain time", retry_after_s=1.0)


def without_folder(error: Exception, root: object) -> str:
    """What is wrong, without the folders of this machine."""
    return str(error).replace(f"{root}/", "")
