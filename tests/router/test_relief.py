"""Relief: requests beyond their share make room for those within, and only for those, and no more than it takes."""

from __future__ import annotations

import numpy as np
import pytest

from router.contract import Dispatch, Record, Slot
from router.family import Family, Share, VariantProfile
from router.latency import table
from router.limits import SERVING
from router.policies import policy_named
from router.relief import FILLED
from router.request import Request
from router.scheduler import Scheduler
from router.words import Outcome, Reason, WhenLate

ROW_S = 0.001
SLO_S = 0.1004


class Crowd:
    """One slot; rows take a millisecond each. For a while `calm` has asked for 5/8 of it, and a row
    of it runs; it may have two thirds.

    Then `loud` asks for 300 rows due in 100 ms at once: a third of those 100 are within its share, so that with those
    beyond the time is full, and the rest are refused.
    """

    def __init__(self, when_late: WhenLate = WhenLate.SHED) -> None:
        only = (VariantProfile("only", 0.7, table((1, 8), (ROW_S, 8 * ROW_S))),)
        families = [
            Family(name, only, max_batch=8, share=Share(weight)) for name, weight in (("calm", 2.0), ("loud", 1.0))
        ]
        margins = {"calm": 1.0, "loud": 1.0}
        self.scheduler = Scheduler(families, [Slot(0)], policy_named("fastest"), margins=margins)
        self.families: dict[int, str] = {}
        self.records: list[Record] = []
        for step in range(1000):
            now = 1.6 * ROW_S * (step - 1000)
            self.ask("calm", now, SLO_S)
            (dispatch,) = self.scheduler.poll(now).dispatches
            self.scheduler.complete(dispatch.batch_id, now + ROW_S)
        self.ask("calm", 0.0, SLO_S)
        self.scheduler.poll(0.0)
        for _ in range(300):
            self.ask("loud", 0.0, SLO_S, when_late)
        self.poll(0.0)

    def ask(self, family: str, now: float, slo_s: float, when_late: WhenLate = WhenLate.SHED) -> None:
        """A request of one row."""
        number = len(self.families)
        self.families[number] = family
        self.scheduler.submit(Request(number, family, (0,), now, now + slo_s, when_late=when_late), now)

    def poll(self, now: float) -> None:
        """Let the scheduler decide; batches that it starts do not end here."""
        self.records += self.scheduler.poll(now).records

    def ended(self, family: str) -> list[tuple[Outcome, Reason]]:
        """How requests of a family ended so far."""
        return [
            (record.outcome, record.reason) for record in self.records if self.families[record.request_id] == family
        ]


def evictions(policy: str, seed: int) -> int:
    """Random requests of 1 to 3 rows, `loud` in bursts, batches that take up to twice as long as planned or break.

    Asserts that every request ends exactly once. Returns how many ended as `over_share` after they had waited.
    """
    rng = np.random.default_rng(seed)
    variants = tuple(
        VariantProfile(f"v{i}", 0.7 + 0.1 * i, table((1, 8), (row_s, 5 * row_s)))
        for i, row_s in enumerate((0.001, 0.003))
    )
    families = [Family(name, variants, max_batch=8) for name in ("calm", "loud")]
    scheduler = Scheduler(families, [Slot(0), Slot(1)], policy_named(policy), SERVING)
    running: dict[int, Dispatch] = {}
    records: list[Record] = []
    now, asked = 0.0, 0

    def poll() -> None:
        turn = scheduler.poll(now)
        records.extend(turn.records)
        running.update({dispatch.batch_id: dispatch for dispatch in turn.dispatches})

    for _ in range(250):
        now += float(rng.exponential(0.003))
        loud = asked > 30 and rng.random() < 0.03
        for _ in range(int(rng.integers(60, 120)) if loud else 1):
            when_late = WhenLate.SERVE if rng.random() < 0.3 else WhenLate.SHED
            slo_s = float(rng.choice([0.03, 0.1, 0.4]))
            rows = (0,) * int(rng.integers(1, 4))
            name = "loud" if loud else "calm"
            scheduler.submit(Request(asked, name, rows, now, now + slo_s, when_late=when_late), now)
            asked += 1
        poll()
        for number, batch in list(running.items()):
            if running.get(number) is batch and now >= batch.started_s + batch.predicted_s * rng.uniform(0.8, 2.0):
                first = min(other for other, candidate in running.items() if candidate.slot == batch.slot)
                dispatch = running.pop(first)
                if rng.random() < 0.02:
                    scheduler.fail(first, Reason.EXECUTOR_ERROR, now)
                else:
                    scheduler.complete(first, now, confidences=rng.uniform(0.4, 1.0, len(dispatch.items)).tolist())
        if rng.random() < 0.1:
            scheduler.cancel(int(rng.integers(asked)), now)
        poll()
    scheduler.abandon_all(now)
    poll()
    assert sorted(record.request_id for record in records) == list(range(asked))
    assert scheduler.queued_rows == 0
    waited = [record for record in records if record.finished_s > record.arrival_s]
    return sum((record.outcome, record.reason) == OVER_SHARE for record in waited)


OVER_SHARE = (Outcome.REJECTED_INFEASIBLE, Reason.OVER_SHARE)
LATE = (Outcome.REJECTED_INFEASIBLE, Reason.DEADLINE_INFEASIBLE)


def test_who_is_beyond_a_share_makes_room_for_one_that_comes() -> None:
    """The backlog is full to the last millisecond; a request within its share is let in, and one guest goes for it."""
    crowd = Crowd()
    waiting, refused = crowd.scheduler.queued_rows, len(crowd.ended("loud"))
    assert waiting >= 0.9 * SLO_S / ROW_S
    crowd.ask("calm", 0.0, SLO_S)
    assert crowd.scheduler.queued_rows == waiting, "one has come, one has gone"
    crowd.poll(0.0)
    assert [OVER_SHARE] == crowd.ended("loud")[refused:]
    assert not crowd.ended("calm")


def test_rows_that_wait_within_their_share_are_relieved() -> None:
    """A row of another flow has little time left behind guests: as many of them go as leave it its part of the time."""
    crowd = Crowd()
    crowd.ask("calm", 0.0, SLO_S)
    crowd.poll(0.0)
    waiting, refused = crowd.scheduler.queued_rows, len(crowd.ended("loud"))
    crowd.poll(0.01)
    evicted = waiting - crowd.scheduler.queued_rows
    # What waits takes at most that part of its 90.4 ms then, and not a row less than that.
    assert int(FILLED * 90.4) == crowd.scheduler.queued_rows
    assert [OVER_SHARE] * evicted == crowd.ended("loud")[refused:]
    assert not crowd.ended("calm")


def test_nobody_makes_room_for_a_flow_that_is_beyond_its_own_share() -> None:
    """More of the same is refused, and nobody has to go for it."""
    crowd = Crowd()
    waiting = crowd.scheduler.queued_rows
    crowd.ask("loud", 0.0, SLO_S)
    assert waiting == crowd.scheduler.queued_rows


def test_requests_within_their_share_are_never_evicted() -> None:
    """However many others come, `loud` keeps what is its own, and each request has one record."""
    crowd = Crowd()
    for _ in range(300):
        crowd.ask("calm", 0.0, SLO_S)
    for step in range(1, 20):
        crowd.poll(0.002 * step)
    assert len(crowd.records) == len({record.request_id for record in crowd.records})
    assert 28 <= 300 - crowd.ended("loud").count(OVER_SHARE) - crowd.ended("loud").count(LATE) <= 34


def test_who_wants_late_answers_goes_to_the_back() -> None:
    """Such a guest is not refused: it waits behind all that can be in time."""
    crowd = Crowd(WhenLate.SERVE)
    waiting = crowd.scheduler.queued_rows
    crowd.ask("calm", 0.0, SLO_S)
    crowd.poll(0.01)
    assert waiting + 1 == crowd.scheduler.queued_rows
    assert not crowd.records


def test_looking_early_evicts_nobody() -> None:
    """A request that may still turn out to be nothing is not refused where others would make room, and they stay."""
    crowd = Crowd()
    waiting = crowd.scheduler.queued_rows
    early = Request(9999, "calm", (0,), 0.0, SLO_S)
    assert crowd.scheduler.refuse_hopeless(early, 0.0) is None
    assert waiting == crowd.scheduler.queued_rows


@pytest.mark.parametrize("policy", ["casc", "fastest"])
def test_nothing_is_lost_and_nothing_ends_twice_where_many_are_evicted(policy: str) -> None:
    """Requests of several rows, some of which run or have answers, and such that want late answers too."""
    assert sum(evictions(policy, seed) for seed in range(6)) > 5
