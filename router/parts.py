"""The parts of one scheduler that who takes requests in and who changes families work on, too."""

from __future__ import annotations

from typing import NamedTuple

from router.backlog import Backlog
from router.demand import Demand
from router.ledger import Ledger
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
