"""What holds for every policy and every sequence of calls: nothing is lost, nothing is answered twice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, consumes, initialize, multiple, rule

from router.contract import Slot
from router.family import Evidence, Family, VariantProfile
from router.latency import table
from router.limits import Limits
from router.policies import policy_named
from router.quarantine import FAULTS, HARD
from router.quotas import Quota, Quotas
from router.request import NEVER, Request
from router.scheduler import Scheduler
from router.words import Reason, WhenLate
from tests.router.booked import SETTLED, BookedScheduler

BASELINES = (
    "slack-fraction",
    "fastest",
    "most-accurate",
    "fixed:f1",
    "slackfit",
    "maxbatch",
    "maxacc",
    "infaas",
    "model-switching",
    "jellyfish",
    "proteus",
    "ramsis",
    "cascadeserve",
    "early-exit",
)
POLICIES = ("casc", "fluid", *BASELINES, *(f"{name}:lazy" for name in BASELINES))
WAITING = ("proteus", "proteus:lazy")
"""Policies that let a slot idle to fill a batch."""


def family(name: str, *, staged: bool = False, narrow: bool = False) -> Family:
    """With `narrow`, it takes two to three times as long on a device of that name."""
    medians = ((0.001, 0.004), (0.004, 0.03), (0.01, 0.08))
    paths = (("a",), ("a", "b"), ("a", "b", "c")) if staged else (("whole",),) * 3
    variants = tuple(
        VariantProfile(f"{name}{i}", 0.6 + i / 10, table((1, 8), row, tuple(3 * s for s in row)), paths[i])
        for i, row in enumerate(medians)
    )
    if narrow:
        slow = [tuple((2 + i / 2) * s for s in row) for i, row in enumerate(medians)]
        tables = [table((1, 8), row, tuple(3 * s for s in row)) for row in slow]
        variants = tuple(replace(v, elsewhere=(("narrow", t),)) for v, t in zip(variants, tables, strict=True))
    # The first variant is right on 60 of 100 rows and surest on these, the next on 70, the last on 80.
    right = np.arange(100) < np.array([[60], [70], [80]])
    confidence = np.tile(np.linspace(0.99, 0.4, 100, dtype=np.float32), (3, 1))
    return Family(name, variants, sizes=(16, 64), max_batch=8, evidence=Evidence(right, confidence))


class SchedulerMachine(BookedScheduler):
    """Random submissions, completions, failures, cancels and passing time against one scheduler."""

    running = Bundle("running")

    @initialize(
        policy=st.sampled_from(POLICIES),
        slots=st.integers(1, 3),
        backlog=st.integers(1, 30),
        ahead=st.sampled_from([0.0, 0.5, 1.0]),
        hang_s=st.sampled_from([NEVER, 0.05]),
        wide=st.integers(0, 3),
    )
    def begin(self, policy: str, slots: int, backlog: int, ahead: float, hang_s: float, wide: int) -> None:
        """Start an empty scheduler of two families; the first `wide` slots are of one device, others of another."""
        self.open(
            Scheduler(
                [family("f", narrow=True), family("g", staged=True, narrow=True)],
                [Slot(i, "wide", 2) if i < wide else Slot(i, "narrow") for i in range(slots)],
                policy_named(policy),
                Limits(backlog, 4, ahead=ahead, hang_s=hang_s),
                quotas=Quotas({"limited": Quota(rate=100.0, burst=10.0, concurrency=3)}),
            ),
            devices=[{i for i in range(slots) if i < wide}, {i for i in range(slots) if i >= wide}],
            backlog=backlog,
            ahead=ahead,
            waits=policy in WAITING,
        )

    @rule(
        target=running,
        name=st.sampled_from(["f", "g", "unknown"]),
        classes=st.lists(st.integers(0, 1), min_size=1, max_size=12),
        slo_s=st.one_of(st.just(NEVER), st.floats(0.0, 0.3)),
        timeout_s=st.one_of(st.just(NEVER), st.floats(0.0, 0.5)),
        floor=st.sampled_from([0.0, 0.65, 0.75, 0.95]),
        pinned=st.sampled_from([None, None, "f1", "nobody"]),
        when_late=st.sampled_from(list(WhenLate)),
        urgency=st.integers(0, 2),
        tenant=st.sampled_from(["free", "limited"]),
        sticky_s=st.sampled_from([0.0, 5.0]),
    )
    def submit(self, name: str, classes: list[int], slo_s: float, timeout_s: float, **terms: Any) -> Any:
        """A request comes in."""
        number = len(self.submitted)
        request = Request(
            number,
            name,
            tuple(classes),
            self.now,
            self.now + slo_s,
            self.now + timeout_s,
            min_quality=terms["floor"],
            pinned=terms["pinned"],
            when_late=terms["when_late"],
            urgency=terms["urgency"],
            tenant=terms["tenant"],
            sticky_s=terms["sticky_s"],
        )
        self.submitted[number] = request
        self.scheduler.submit(request, self.now)
        return self._poll()

    @rule(target=running, batch=consumes(running), sure=st.lists(st.floats(0.01, 1.0), min_size=8, max_size=8))
    def complete(self, batch: int, sure: list[float]) -> Any:
        """A batch is answered, each row with some confidence: the first of its slot."""
        if batch not in self.busy:
            return multiple()
        if batch != min(self._of_slot(self.busy[batch].slot)):
            return batch
        dispatch = self.busy.pop(batch)
        held = dispatch.variant in self.scheduler.quarantined(dispatch.family)
        waiting = self.scheduler.queued_rows
        kept = self.scheduler.complete(batch, self.now, confidences=sure[: len(dispatch.items)])
        assert held == (kept is None), "a variant in quarantine answers"
        if kept is None:
            self._unanswered(dispatch)
            return self._poll()
        self.insured.update(item.request_id for item in dispatch.items if item.at < 0)
        assert len(kept) == self.scheduler.queued_rows - waiting, "kept rows wait again, and nobody else"
        for place, item in enumerate(dispatch.items):
            if place not in kept:
                self.variant_of[item.request_id, item.row] = SETTLED
        return self._poll()

    @rule(target=running, batch=consumes(running), reason=st.sampled_from([*sorted(FAULTS), Reason.EXECUTOR_LOST]))
    def fail(self, batch: int, reason: Reason) -> Any:
        """A batch breaks, perhaps before the one ahead of it in its slot has ended."""
        if batch not in self.busy:
            return multiple()
        dispatch = self.busy.pop(batch)
        self._unanswered(dispatch)
        self.scheduler.fail(batch, reason, self.now)
        held = dispatch.variant in self.scheduler.quarantined(dispatch.family)
        assert held or reason not in HARD, "who costs an executor is in quarantine"
        return self._poll()

    @rule(target=running, slot=st.integers(0, 2), reason=st.sampled_from([Reason.CRASHED, Reason.EXECUTOR_LOST]))
    def lose(self, slot: int, reason: Reason) -> Any:
        """The executor of a slot is gone, with its batches."""
        if any(slot in own for own in self.devices) and slot not in self.lost:
            self.scheduler.lose(slot, reason, self.now)
            self._gone(slot)
        return self._poll()

    @rule(target=running, slot=st.integers(0, 2))
    def restore(self, slot: int) -> Any:
        """A slot has an executor again."""
        if slot in self.lost:
            self.lost.remove(slot)
            self.scheduler.restore(slot, self.now)
        return self._poll()

    @rule(target=running, fault=st.one_of(st.none(), st.sampled_from([*sorted(FAULTS), Reason.EXECUTOR_LOST])))
    def probe(self, fault: Reason | None) -> Any:
        """A variant in quarantine was tried."""
        if self.probes:
            self.scheduler.probed(self.probes.pop(0), fault, self.now)
        return self._poll()

    @rule(target=running, number=st.integers(0, 40))
    def cancel(self, number: int) -> Any:
        """A caller hangs up, perhaps one that is long answered."""
        self.scheduler.cancel(number, self.now)
        return self._poll()

    @rule(target=running, seconds=st.floats(0.0, 0.2))
    def wait(self, seconds: float) -> Any:
        """Time passes."""
        self.now += seconds
        return self._poll()

    @rule(target=running, name=st.sampled_from(["f", "g"]), loaded=st.sets(st.integers(0, 2)))
    def load(self, name: str, loaded: set[int]) -> Any:
        """Other variants of a family are loaded from now on, perhaps none."""
        family = self.scheduler.families[name].with_loaded(loaded)
        used = self.scheduler.in_use(name)
        self.scheduler.replace(self.scheduler.prepare(family), self.now)
        assert self.scheduler.in_use(name) == used, "a batch that runs goes on"
        return self._poll()

    @rule(target=running, name=st.sampled_from(["f", "g"]))
    def give_up_loading(self, name: str) -> Any:
        """What waits for a load of some variant waits in vain."""
        for missing in self.scheduler.cold()[name].missing if name in self.scheduler.cold() else ():
            self.scheduler.refuse_cold(name, missing, self.now)
        assert name not in self.scheduler.cold()
        return self._poll()

    @rule(target=running)
    def wake(self) -> Any:
        """Time passes until the scheduler wants to be asked again."""
        if self.wake_at < NEVER:
            self.now = self.wake_at
        return self._poll()


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_calls_give_the_same_answers(policy: str) -> None:
    """A scheduler reads no clock and draws no numbers: two of them agree call for call."""
    logs = []
    for _ in range(2):
        scheduler = Scheduler([family("f"), family("g")], [Slot(0), Slot(1)], policy_named(policy))
        log, now, running = [], 0.0, []
        for number in range(300):
            name = "fg"[number % 2]
            row_classes = (number % 2,) * (1 + number % 5)
            scheduler.submit(Request(number, name, row_classes, now, now + 0.02 + 0.001 * (number % 40)), now)
            poll = scheduler.poll(now)
            running += [dispatch.batch_id for dispatch in poll.dispatches]
            now += 0.002
            if len(running) > 1:
                batch = running.pop(0)
                scheduler.complete(batch, now, confidences=[0.5 + 0.05 * ((batch + row) % 10) for row in range(8)])
            log.append((poll, scheduler.poll(now)))
            running += [dispatch.batch_id for dispatch in log[-1][1].dispatches]
        logs.append(log)
    assert logs[0] == logs[1]


def test_an_unknown_policy_names_the_known_ones() -> None:
    """The error lists what could have been meant."""
    with pytest.raises(ValueError, match=r"slack-fraction, fastest, .*, fixed:<variant>"):
        policy_named("fixed:")
