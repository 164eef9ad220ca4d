"""What a policy may see, and what it may want: numbers in, a decision out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from router.backlog import LaneKey
from router.contract import Hints, Slot
from router.demand import Demand
from router.family import Family
from router.latency import LatencyModel
from router.request import NEVER, Item
from router.words import Reason


class Lane(NamedTuple):
    """Rows that may share a batch: the first `items` (bounded look-ahead, earliest deadline first) of `depth`.

    `last_deadline_s` is the deadline of the last of all. Where slots are of several kinds, `rows` has all, live.
    """

    key: LaneKey
    family: Family
    latency: LatencyModel
    depth: int
    items: tuple[Item, ...]
    last_deadline_s: float
    rows: Sequence[Item] = ()


class Kinds(NamedTuple):
    """Slots of several devices: by slot its `device`, its threads (`width`), and its `speed` against the first device.

    `names` has the devices, the fastest first.
    """

    names: tuple[str, ...]
    device: Mapping[int, str]
    width: Mapping[int, int]
    speed: Mapping[int, float]

    @classmethod
    def of(cls, slots: Sequence[Slot], speeds: Mapping[str, float]) -> Kinds:
        """The kinds of these slots; a device without a speed is as fast as the first."""
        device = {slot.index: slot.device for slot in slots}
        names = sorted(dict.fromkeys(device.values()), key=lambda name: -speeds.get(name, 1.0))
        speed = {index: speeds.get(name, 1.0) for index, name in device.items()}
        return cls(tuple(names), device, {slot.index: slot.width for slot in slots}, speed)

    def crowd(self, slot: int, busy: Iterable[int]) -> float:
        """The share of the threads of all slots but this one that are busy, in [0, 1]."""
        others = sum(self.width.values()) - self.width[slot]
        return sum(self.width[other] for other in busy if other != slot) / others if others else 0.0


class View(NamedTuple):
    """The state of the machine at one moment.

    `lanes` hold rows with a deadline that can still be met; `background` rows without one and rows already late that
    are to be served all the same. `busy_until_s` has the expected end of each busy slot. `met` and `missed` count
    requests so far that were answered in time, and that were not though they could have been when they came.

    Where slots are of several `kinds`, a policy is shown one device at a time (`router.devices`): `free_slots` are
    those of the device that are free, the latencies of lanes are its own, and all other slots are among those of
    `busy_until_s`, if only until now. `busy_slots` says which they are, `others` how much each of them does while one
    of the device's slots does 1, `idle` the same of those of them that are free and could be filled now. While the
    next batch of a busy slot is decided, `left` has the free slots that are left so. All of them are empty where slots
    are alike.
    """

    free_slots: tuple[int, ...]
    busy_until_s: tuple[float, ...]
    lanes: tuple[Lane, ...]
    background: tuple[Lane, ...]
    hints: Hints | None
    kept: tuple[Lane, ...]
    demand: Demand
    reply_margin_s: float
    met: int = 0
    missed: int = 0
    kinds: Kinds | None = None
    busy_slots: tuple[int, ...] = ()
    others: tuple[float, ...] = ()
    idle: tuple[float, ...] = ()
    left: tuple[int, ...] = ()

    @property
    def slots(self) -> float:
        """How many slots there are: where they are of several kinds, in slots of the device that is shown."""
        return len(self.free_slots) + (sum(self.others) if self.others else len(self.busy_until_s))


class Plan(NamedTuple):
    """Run these rows of one lane as one batch on that variant (index) and slot; kept rows on a better one."""

    slot: int
    lane: Lane
    variant: int
    items: tuple[Item, ...]
    reason: Reason


class Decision(NamedTuple):
    """One step: rows that are hopeless or else at most one batch, and when to ask again though nothing happened.

    `settled` are kept rows whose answer may go out: a better one is no longer to be had. A plan beside late or settled
    rows is not looked at: the policy is asked again once those are gone. `worth` is what the plan is worth, in quality,
    beyond what its rows were allotted; below 0 it is less, and without end where nothing was weighed.
    """

    late: tuple[tuple[Lane, Item], ...]
    plan: Plan | None
    wake_at: float
    settled: tuple[tuple[Lane, Item], ...] = ()
    worth: float = -NEVER


class Policy(Protocol):
    """A rule. Frozen parameters; what it remembers between calls is the opaque state that the scheduler holds."""

    def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
        """What to do at `now`; called again, with a fresh view, for as long as it plans batches."""


@runtime_checkable
class CascadePolicy(Policy, Protocol):
    """A rule that may answer a row more than once, each time better."""

    def keeps(self, state: object, family: Family, latency: LatencyModel, item: Item, now: float) -> bool:
        """Whether to keep the answer of a row (`item.at`, `item.confidence`) for now, because a better variant may pay.

        Asked when a batch is answered in time; kept rows are in `View.kept` until they are planned or settled, and are
        answered with what they have at their deadline at the latest.
        """


@runtime_checkable
class PreparedPolicy(Policy, Protocol):
    """A rule with tables that take long to make, for which no request should wait."""

    def prepare(self, families: Sequence[tuple[Family, LatencyModel]]) -> object:
        """The state to begin with."""

    def adopt(self, state: object, family: str, prepared: object | None) -> object:
        """The state to go on with, where a family has changed for which `prepared` was made; None: it is cold or gone.

        Called before anything else that knows of the change.
        """
