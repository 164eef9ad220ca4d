"""Audits: some answers of quick variants are given again by the best one when nobody else wants the time, and compared.

Which ones depends on the request's id alone. An audit is a request of the gateway's own: of one row, without a
deadline, after everything else in urgency, and given up where there is no spare capacity for it
(`service.spare_time`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from time import monotonic

from router.family import Family
from router.request import Request
from router.sampling import fraction
from service.live_quality import LiveQuality
from service.spare_time import SpareTime, Submit
from service.work import Answer
from variants.preparation import Row


class Audits:
    """Draws `share` of the answered requests by their ids and compares the first row of each.

    `family` is the one of that name as long as it is served, `submit` takes a request in, `cancel` gives it up,
    `next_id` makes its id; `label` bounds tenants. `compared` is told of each family of which an answer was compared.
    """

    def __init__(
        self,
        share: float,
        quality: LiveQuality,
        family: Callable[[str], Family | None],
        submit: Submit,
        cancel: Callable[[int], None],
        next_id: Callable[[], int],
        label: Callable[[str], str],
        compared: Callable[[str], None] | None = None,
    ) -> None:
        self._share = share
        self._quality = quality
        self._family = family
        self._spare = SpareTime(submit, cancel, next_id)
        self._label = label
        self._compared = compared
        self._stopped = False

    def consider(self, request: Request, name: str, row: Row, answer: Answer) -> None:
        """A request was answered; `name` is its id, `row` its first row. Returns at once, whatever is to be done."""
        drawn = answer.record.variant and request.pinned is None and fraction(name, "audit") < self._share
        if drawn and not self._stopped:
            # After the answer has been sent.
            asyncio.get_running_loop().call_soon(self._audit, request, row, answer)

    def stop(self) -> None:
        """Give up what waits, and take up nothing more: the replica drains."""
        self._stopped = True
        self._spare.stop()

    def give_up(self, family: str) -> None:
        """Give up what waits of one family: others wait for all of its requests to end."""
        self._spare.give_up(family)

    def _audit(self, request: Request, row: Row, answer: Answer) -> None:
        family = self._family(request.family)
        if family is None or not family.ladder or self._stopped:
            return
        if family.revision != request.revision:
            # Another one has its place since: neither its rows nor its answers are this one's.
            return
        best = family.variants[family.ladder[-1]].name
        if answer.record.row_variants[0] == best:
            self._compare(family, best, request, answer, int(answer.answers.labels[0]))
            return
        if self._spare.room() < 1:
            self._quality.skip(family.name)
            return
        audit = self._spare.ask(family, best, request.row_classes[0], row)
        audit.add_done_callback(partial(self._done, family, request, answer))

    def _done(self, family: Family, request: Request, answer: Answer, future: asyncio.Future[Answer]) -> None:
        if future.cancelled() or not (audit := future.result()).record.variant:
            self._quality.skip(family.name)
            return
        self._compare(family, audit.record.variant, request, answer, int(audit.answers.labels[0]))

    def _compare(self, family: Family, best: str, request: Request, answer: Answer, label: int) -> None:
        now, first = monotonic(), answer.record.path[0]
        if first != best:
            self._quality.compare(family, first, answer.first_label == label, now)
        self._quality.serve(family.name, self._label(request.tenant), int(answer.answers.labels[0]) == label, now)
        if self._compared is not None:
            self._compared(family.name)
