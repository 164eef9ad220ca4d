"""The profile `search` from plan to answer, against a gateway whose edge is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from loadtests.generator_faults import Sending
from loadtests.harness.cargo import Plan
from loadtests.harness.conductor import Ran
from loadtests.harness.profiles import Profile
from loadtests.harness.search import SearchOptions
from loadtests.harness.session import Ended, Session
from loadtests.harness.verdict import Outcome, Wanted
from loadtests.load import MOST_REQUESTS
from loadtests.outcomes import Fate, Reply, Results
from tests.loadtests.judged import Silent, load, subject

PER_S, BURST = 90.0, 20.0


class Bucket:
    """Stands for generator and gateway: so many requests a second are answered, the others refused.

    `lag_s` is the generator's lag in the trial of that number.
    """

    interrupted = False

    def __init__(self, lag_s: Callable[[int], float] = lambda number: 0.0, per_s: float = PER_S) -> None:
        self._lag_s, self._per_s = lag_s, per_s
        self.plans: list[Plan] = []

    def run(self, plan: Plan, watch: Any) -> Ran:
        results, left, before_s = Results.pending(len(plan)), BURST, 0.0
        for index, at_s in enumerate(plan.workload.arrival_s.tolist()):
            left, before_s = min(BURST, left + (at_s - before_s) * self._per_s), at_s
            taken = left >= 1.0
            left -= taken
            results.take(index, Reply(Fate.ANSWERED if taken else Fate.REFUSED, 0, "large"), 0.001)
        sending = Sending(np.full(len(plan), self._lag_s(len(self.plans))), 0.1, 1)
        self.plans.append(plan)
        return Ran(plan, results, sending, (), 0.0, cut=False)


def searched(bucket: Bucket, options: SearchOptions, rate: float = 40.0) -> tuple[Ended, Session]:
    session = Session(bucket, subject(), Silent())  # type: ignore[arg-type]  # what it needs of a conductor
    return Profile("search", load(rate, 2.0), 0, Wanted(0.9), search=options).run(session), session


@pytest.mark.parametrize("late", [(), (0,), (0, 2)])
def test_a_search_ends_at_the_gateways_edge(late: tuple[int, ...]) -> None:
    """A gateway that takes 90 a second is found to do no more; a trial with a late generator is tried again."""
    bucket = Bucket(lambda number: 0.002 if number in late else 0.0)
    ended, session = searched(bucket, SearchOptions(0.1, 2))
    assert ("gateway", Outcome.PASSED) == (ended.details["limit"], ended.verdict.outcome)
    rate = ended.details["rate"]
    assert isinstance(rate, float)
    assert 80.0 <= rate < 120.0
    assert "requests/s with 90 % answered within 50 ms" in ended.lines[0]
    assert list(late) == [place for place, run in enumerate(session.runs) if run.score.faults]


def test_a_generator_that_is_always_late_leaves_it_open() -> None:
    """No answer, and the run is invalid."""
    ended, _ = searched(Bucket(lambda number: 0.002), SearchOptions(0.5, 1))
    assert (None, "generator", Outcome.INVALID) == (
        ended.details["rate"],
        ended.details["limit"],
        ended.verdict.outcome,
    )


def test_no_trial_is_larger_than_a_load_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """At high rates trials are shorter, rather than the search being lost."""
    monkeypatch.setattr("loadtests.harness.search.MOST_REQUESTS", MOST_REQUESTS // 1000)
    monkeypatch.setattr("loadtests.load.MOST_REQUESTS", MOST_REQUESTS // 1000)
    bucket = Bucket(per_s=4000.0)
    ended, _ = searched(bucket, SearchOptions(0.5, 1), 1600.0)
    assert ended.details["limit"] == "gateway"
    assert max(len(plan) for plan in bucket.plans) < 1.2 * MOST_REQUESTS / 1000
