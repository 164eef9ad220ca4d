"""What a policy may see, and what it may want: numbers in, a decision out."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from router.backlog import LaneKey
from router.contract import Family, Hints, Item, Reason
from router.latency import LatencyModel


class Lane(NamedTuple):
    """Rows that may share a batch: the first `items` (bounded look-ahead, earliest deadline first) of `depth`."""

    key: LaneKey
    family: Family
    latency: LatencyModel
    depth: int
    items: tuple[Item, ...]


class View(NamedTuple):
    """The state of the machine at one moment.

    `lanes` hold rows with a deadline that can still be met; `background` rows without one and rows already late that
    are to be served all the same. `busy_until_s` has the expected end of each busy slot.
    """

    free_slots: tuple[int, ...]
    busy_until_s: tuple[float, ...]
    lanes: tuple[Lane, ...]
    background: tuple[Lane, ...]
    hints: Hints | None


class Plan(NamedTuple):
    """Run these rows of one lane as one batch on that variant (index) and slot."""

    slot: int
    lane: Lane
    variant: int
    items: tuple[Item, ...]
    reason: Reason


class Decision(NamedTuple):
    """One step: rows that are hopeless or else at most one batch, and when to ask again though nothing happened.

    A plan beside late rows is not looked at: the policy is asked again once those are gone.
    """

    late: tuple[tuple[Lane, Item], ...]
    plan: Plan | None
    wake_at: float


class Policy(Protocol):
    """A rule. Frozen parameters; what it remembers between calls is the opaque state that the scheduler holds."""

    def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
        """What to do at `now`; called again, with a fresh view, for as long as it plans batches."""
