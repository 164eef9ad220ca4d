"""Who is refused at arrival: those for whom the rows that go first leave no time, and nobody else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.contract import Slot
from router.family import Family, VariantProfile
from router.latency import table
from router.limits import Limits
from router.policies.slack_fraction import SlackFraction
from router.request import NEVER, Request
from router.scheduler import Scheduler
from router.words import Outcome, Reason, WhenLate

SHORT = Family("short", (VariantProfile("only", 0.7, table((1, 8), (0.002, 0.008))),), max_batch=8)
"""A row takes 1 ms in a full batch."""
LONG = Family("long", (VariantProfile("only", 0.7, table((1,), (2.0,))),), max_batch=1)


def scheduler(slots: int = 1) -> Scheduler:
    return Scheduler(
        [SHORT, LONG], [Slot(index) for index in range(slots)], SlackFraction(), Limits(), {"short": 1.0, "long": 1.0}
    )


def request(number: int, slo_s: float, family: str = "short", urgency: int = 5, rows: int = 1) -> Request:
    return Request(number, family, (0,) * rows, 0.0, slo_s, NEVER, urgency=urgency)


def filled(waiting: int, slo_s: float = 0.1, *, urgency: int = 5, slots: int = 1) -> Scheduler:
    """All slots run a batch of eight, so long as nothing ends; `waiting` rows wait."""
    driven = scheduler(slots)
    for slot in range(slots):
        driven.submit(request(900 + slot, 0.1, rows=8), 0.0)
        assert len(driven.poll(0.0).dispatches) == 1
    for number in range(waiting):
        driven.submit(request(number, slo_s, urgency=urgency), 0.0)
    assert waiting == driven.queued_rows
    return driven


def refused(driven: Scheduler, asked: Request) -> bool:
    """Whether it is refused at arrival, before anything is decided."""
    waiting = driven.queued_rows
    driven.submit(asked, 0.0)
    return driven.queued_rows == waiting


@pytest.mark.parametrize(
    ("asked_s", "urgency", "gone"),
    [(0.1, 5, True), (0.05, 5, False), (0.2, 5, False), (0.1, 4, False), (0.05, 6, True)],
    ids=["no time is left", "they are due later", "it has more time", "it goes first", "they go first"],
)
def test_only_rows_that_go_first_crowd_out(asked_s: float, urgency: int, *, gone: bool) -> None:
    """Eight rows run and 92 wait, each of 1 ms and due in 100 ms at urgency 5."""
    assert gone is refused(filled(92), request(999, asked_s, urgency=urgency))


def test_the_queue_is_as_long_as_its_deadline_allows() -> None:
    """Of two hundred rows that come at once, as many wait as a slot answers in time; the others are told so."""
    driven = scheduler()
    for number in range(200):
        driven.submit(request(number, 0.1), 0.0)
    assert 95 <= driven.queued_rows <= 100
    records = driven.poll(0.0).records
    assert {(Outcome.REJECTED_INFEASIBLE, Reason.DEADLINE_INFEASIBLE)} == {(r.outcome, r.reason) for r in records}
    assert 200 - len(records) == driven.unfinished


def test_a_slot_that_is_away_for_long_leaves_the_others() -> None:
    """One of two slots runs for two seconds: the other one's time is what counts."""
    driven = scheduler(slots=2)
    driven.submit(request(1, 10.0, "long"), 0.0)
    assert len(driven.poll(0.0).dispatches) == 1
    driven.submit(request(2, 0.1, rows=8), 0.0)
    assert len(driven.poll(0.0).dispatches) == 1
    for number in range(10, 40):
        driven.submit(request(number, 0.1), 0.0)
    assert driven.queued_rows == 30


def test_whoever_wants_a_late_answer_waits_for_it() -> None:
    """`when_late=serve` is never refused for want of time."""
    driven = filled(85)
    assert refused(driven, request(998, 0.08, urgency=6))
    assert not refused(driven, request(999, 0.08, urgency=6)._replace(when_late=WhenLate.SERVE))


def test_with_nothing_that_goes_first_nobody_is_crowded_out() -> None:
    """Whatever is believed of latencies: the belief could never be corrected."""
    driven = scheduler()
    latency = driven.latency("short")
    for _ in range(500):
        latency.observe(0, 1, 0, 1.0, 1.0, 0.0)
    assert latency.full_row_s(0, 0) > 0.1
    assert not refused(driven, request(1, 0.1))


def test_a_family_that_is_always_refused_recovers() -> None:
    """A belief in a slow machine fades also while another family keeps the queue full."""
    driven = filled(20)
    latency = driven.latency("long")
    for _ in range(500):
        latency.observe(0, 1, 0, 20.0, 20.0, 0.0)
    before_s = latency.full_row_s(0, 0)
    for step in range(1, 100):
        now = 0.1 * step
        driven.refuse_hopeless(Request(5000 + step, "long", (0,), now, now + 3.0, NEVER, urgency=9), now)
    assert latency.full_row_s(0, 0) < 0.5 * before_s


@given(st.integers(0, 80), st.integers(1, 120), st.integers(4, 6))
def test_who_is_refused_early_would_be_refused(waiting: int, slo_ms: int, urgency: int) -> None:
    """What is told before decoding is what `submit` would tell; either way there is one record."""
    early, late = filled(waiting), filled(waiting)
    asked = request(999, slo_ms / 1000.0, urgency=urgency)
    told = early.refuse_hopeless(asked, 0.0)
    assert (told is not None) is refused(late, asked)
    if told:
        assert [999] == [record.request_id for record in early.poll(0.0).records]
        assert [999] == [record.request_id for record in late.poll(0.0).records]
    else:
        assert waiting == early.queued_rows
