"""The parts of one scheduler that who takes requests in and who changes families work on, too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from router.backlog import Backlog
from router.contract import Slot
from router.demand import Demand
from router.devices import speeds
from router.family import Family
from router.latency import LatencyModel
from router.ledger import Ledger
from router.limits import Limits
from router.pace import Paces
from router.quarantine import Quarantine
from router.slots import Slots
from router.viewer import Known, Viewer
from router.waiting import Waiting


class Parts(NamedTuple):
    """References to what one scheduler is made of; all but this record itself changes.

    `margins` has the planning margin of each family of `families`, `None` where it is learnt.
    """

    families: dict[str, Known]
    margins: dict[str, float | None]
    viewer: Viewer
    slots: Slots
    backlog: Backlog
    waiting: Waiting
    ledger: Ledger
    demand: Demand
    quarantine: Quarantine
    paces: Paces


def parts_of(
    families: Iterable[Family], slots: Sequence[Slot], limits: Limits, margins: Mapping[str, float | None]
) -> Parts:
    """Those of a new scheduler; a family without one of the `margins` learns it."""
    by_name = {family.name: family for family in families}
    own_margins = {name: margins.get(name) for name in by_name}
    paces = Paces()
    known = {name: Known(family, LatencyModel(family, own_margins[name], paces)) for name, family in by_name.items()}
    backlog = Backlog()
    speed = speeds(slots, [one.latency for one in known.values()])
    return Parts(
        known,
        own_margins,
        Viewer(known, own_margins, limits.look_ahead, limits.reply_margin_s),
        Slots(slots, limits.ahead, limits.hang_s, speed),
        backlog,
        Waiting(backlog),
        Ledger(backlog),
        Demand(),
        Quarantine(),
        paces,
    )
