"""Rows on their way through the backlog: what a request knows of its waiting rows and the lanes change together."""

from __future__ import annotations

from router.backlog import Backlog, LaneKey
from router.pending import Pending
from router.request import Item
from router.view import Plan


class Waiting:
    """Puts rows into lanes, moves them and takes them out. A row waits in one lane at a time."""

    __slots__ = ("_backlog", "_sequence")

    def __init__(self, backlog: Backlog) -> None:
        self._backlog = backlog
        self._sequence = 0

    def enter(self, pending: Pending, lowest: int, by_s: float, *, background: bool, held: int = -1) -> None:
        """All rows of a new request wait for variant `lowest` or a better one, to be answered by `by_s`.

        Where the caller keeps a variant, `held`, they wait for that one until `loosen`.
        """
        request = pending.request
        lowest = lowest if held < 0 else held
        pinned = held if request.pinned is None else max(lowest, ~lowest)
        slo_s = request.deadline_s - request.arrival_s
        for row, size_class in enumerate(request.row_classes):
            self._sequence += 1
            item = Item(
                request.urgency,
                by_s,
                self._sequence,
                request.id,
                row,
                size_class,
                lowest,
                request.min_quality,
                slo_s,
            )
            key = LaneKey(request.family, pinned, lowest, size_class, request.urgency, background, held=held >= 0)
            self._put(pending, key, item)

    def again(self, pending: Pending, item: Item) -> None:
        """A row with an answer (`item.at`) waits for a better one."""
        key = LaneKey(pending.request.family, -1, item.lowest, item.size_class, item.urgency, False, item.at)
        self._put(pending, key, item)

    def retry(self, pending: Pending, item: Item, *, background: bool, alone: bool, aside: bool) -> None:
        """A row whose batch gave no answer waits for variant `item.lowest` or a better one, perhaps alone.

        It waits for that one and no other where another one, which may answer others, broke under it: `aside`.
        """
        request, lowest = pending.request, item.lowest
        pinned = -1 if request.pinned is None and not aside else max(lowest, ~lowest)
        number = request.id if alone else -1
        key = LaneKey(request.family, pinned, lowest, item.size_class, item.urgency, background, alone=number)
        self._put(pending, key, item)

    def postpone(self, pending: Pending, key: LaneKey, item: Item) -> None:
        """A row that is late goes to the background."""
        self.move(pending, key, item, key._replace(background=True), item)

    def loosen(self, pending: Pending, key: LaneKey, item: Item, lowest: int) -> None:
        """A row that waits for the variant its caller keeps may be answered by `lowest` or a better one."""
        to = key._replace(pinned=-1, lowest=lowest, held=False)
        self.move(pending, key, item, to, item._replace(lowest=lowest))

    def move(self, pending: Pending, key: LaneKey, item: Item, to: LaneKey, moved: Item) -> None:
        """A row goes on waiting in another lane, on other terms."""
        self._backlog.remove(key, (item,))
        self._put(pending, to, moved)

    def leave(self, pending: Pending, key: LaneKey, item: Item) -> None:
        """A row waits no longer."""
        del pending.queued[item.row]
        self._backlog.remove(key, (item,))

    def take(self, plan: Plan) -> None:
        """The rows of a plan leave their lane; their requests are told when the batch has started."""
        lane, items = plan.lane, plan.items
        if items[-1] is lane.items[len(items) - 1]:
            self._backlog.take_first(lane.key, len(items))
        else:
            self._backlog.remove(lane.key, items)

    def _put(self, pending: Pending, key: LaneKey, item: Item) -> None:
        self._backlog.add(key, item)
        pending.queued[item.row] = (key, item)
