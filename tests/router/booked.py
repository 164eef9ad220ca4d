"""A scheduler under test with books of all that goes in and comes out, which it is held against after every call."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine, invariant, multiple

from router.admission import lowest_variant
from router.contract import Dispatch, Spell
from router.request import NEVER, Request
from router.scheduler import Scheduler
from router.words import Outcome, WhenLate

SETTLED = -2
"""In the place of a variant: the row has its last answer."""


class BookedScheduler(RuleBasedStateMachine):
    """The books and what must hold; whoever derives from it makes the calls, each of which ends with a poll."""

    def open(self, scheduler: Scheduler, *, devices: list[set[int]], backlog: int, ahead: float, waits: bool) -> None:
        """Begin with an empty scheduler; `devices` has the slots of each, `waits` says that a slot may idle."""
        self.now = 0.0
        self.scheduler = scheduler
        self.devices = devices
        self.backlog = backlog
        self.ahead = ahead
        self.waits = waits
        self.submitted: dict[int, Request] = {}
        self.ended: Counter[int] = Counter()
        self.busy: dict[int, Dispatch] = {}
        self.lost: set[int] = set()
        self.probes: list[Spell] = []
        self.variant_of: dict[tuple[int, int], int] = {}
        self.insured: Counter[int] = Counter()
        self.wake_at = NEVER

    def _poll(self) -> Any:
        poll = self.scheduler.poll(self.now)
        assert poll.wake_at > self.now, "it would be asked again for ever"
        assert poll.wake_at > self.now or not poll.wake_at < NEVER, "a wake-up lies in the future"
        self.wake_at = poll.wake_at
        for gone in poll.hung:
            assert gone.batch_id in self.busy, "it runs"
            self._gone(gone.slot)
        self.probes += poll.probes
        for record in poll.records:
            self.ended[record.request_id] += 1
            request = self.submitted[record.request_id]
            if record.outcome in (Outcome.SERVED, Outcome.SERVED_LATE):
                assert len(record.row_variants) == len(request.row_classes)
                assert all(record.row_variants)
                assert record.quality >= request.min_quality or request.pinned
                assert request.pinned in (None, record.variant)
                assert (record.outcome is Outcome.SERVED) == (record.finished_s <= request.deadline_s)
            elif self.insured[record.request_id] == len(request.row_classes):
                assert record.outcome in (Outcome.CANCELLED, Outcome.EXPIRED), "an insured answer is lost"
        for dispatch in poll.dispatches:
            assert dispatch.slot not in self.lost, "the slot is out of service"
            before = self._of_slot(dispatch.slot)
            assert len(before) == dispatch.ahead, "a slot has one batch, and at most one more that was decided ahead"
            assert self.ahead or not dispatch.ahead
            assert len({item.size_class for item in dispatch.items}) == 1
            assert 1 <= len(dispatch.items) <= 8
            self.busy[dispatch.batch_id] = dispatch
            variant = self.scheduler.families[dispatch.family].index(dispatch.variant)
            assert variant is not None
            assert self.scheduler.families[dispatch.family].is_loaded(variant), "a batch on what is not loaded"
            for item in dispatch.items:
                assert item.at == self.variant_of.get((item.request_id, item.row), -1), "a row runs again unkept"
                assert item.at < variant, "a row is answered again, but no better"
                self.variant_of[item.request_id, item.row] = variant
        return multiple(*(dispatch.batch_id for dispatch in poll.dispatches))

    @invariant()
    def no_row_is_in_two_batches(self) -> None:
        """Whatever a row has had before, it runs once at a time."""
        rows = [(item.request_id, item.row) for dispatch in self.busy.values() for item in dispatch.items]
        assert len(rows) == len(set(rows))

    @invariant()
    def every_request_is_either_unfinished_or_ended_once(self) -> None:
        """Submitted = unfinished + ended, and nothing ends twice."""
        assert not self.ended or max(self.ended.values()) == 1
        assert len(self.submitted) == self.scheduler.unfinished + len(self.ended)

    @invariant()
    def the_backlog_is_bounded(self) -> None:
        """Never more rows wait than the limit allows."""
        assert self.scheduler.queued_rows <= self.backlog

    @invariant()
    def no_slot_idles_while_rows_wait(self) -> None:
        """Fresh rows and a free slot never meet without a batch, unless the policy waits, or a look at them is due.

        Work without a deadline waits where it would be in the way of others who are expected. While a device has no
        free slot, another one may leave to it what is too late for itself.
        """
        taken = self.lost | {dispatch.slot for dispatch in self.busy.values()}
        is_free = all(slots - taken for slots in self.devices if slots)
        idle = is_free and self._fresh_rows() and not self.waits
        waiting = self.submitted.values()
        patient = any(r.deadline_s == NEVER or r.when_late is WhenLate.SERVE for r in waiting)
        assert not idle or (patient and self.wake_at < NEVER)

    @invariant()
    def the_scheduler_knows_its_slots(self) -> None:
        """A slot is busy as long as a batch of it has not ended, and out of service until it is restored."""
        assert (self._busy_slots(), len(self.lost)) == (self.scheduler.busy_slots, self.scheduler.lost_slots)

    def _unanswered(self, dispatch: Dispatch) -> None:
        """Rows of a batch without an answer may run anew, those with a kept answer have their last."""
        for item in dispatch.items:
            if item.at < 0:
                del self.variant_of[item.request_id, item.row]
            else:
                self.variant_of[item.request_id, item.row] = SETTLED

    def _gone(self, slot: int) -> None:
        """A slot is out of service, with its batches."""
        self.lost.add(slot)
        for number in self._of_slot(slot):
            self._unanswered(self.busy.pop(number))

    def _of_slot(self, slot: int) -> list[int]:
        """The batches of a slot that have not ended."""
        return [number for number, dispatch in self.busy.items() if dispatch.slot == slot]

    def _busy_slots(self) -> int:
        return len({dispatch.slot for dispatch in self.busy.values()})

    def _fresh_rows(self) -> list[tuple[int, int]]:
        """The rows of unfinished requests that have been in no batch."""
        return [
            (number, row)
            for number, request in self.submitted.items()
            if number not in self.ended
            for row in range(len(request.row_classes))
            if (number, row) not in self.variant_of and self._is_warm(request)
        ]

    def _is_warm(self, request: Request) -> bool:
        """Whether something that is loaded may answer it."""
        return lowest_variant(self.scheduler.families[request.family], request, None) is not None

    def teardown(self) -> None:
        """At shutdown everything has its outcome."""
        if not hasattr(self, "scheduler"):
            return
        self.scheduler.abandon_all(self.now)
        for record in self.scheduler.poll(self.now).records:
            self.ended[record.request_id] += 1
        assert sorted(self.ended) == sorted(self.submitted)
        assert set(self.ended.values()) <= {1}
