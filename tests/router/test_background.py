"""The class `batch`: work without a deadline uses spare time, all of it, and costs nobody else a deadline."""

from __future__ import annotations

import numpy as np
import pytest

from router.family import Family
from router.request import NEVER, Request
from router.words import Reason
from tests.queued import FAMILY
from tests.router.served import serve

SECONDS = 4.0


def interactive(rate: float, slo_s: float, seed: int = 7) -> list[Request]:
    """Poisson arrivals with this SLO."""
    times = np.cumsum(np.random.default_rng(seed).exponential(1.0 / rate, int(rate * SECONDS)))
    return [Request(number, "f", (0,), now, now + slo_s, NEVER) for number, now in enumerate(times.tolist())]


def spare(count: int, pinned: str | None = None, timeout_s: float = NEVER) -> list[Request]:
    """Work without a deadline, all there from the start, after everybody else in urgency."""
    return [
        Request(10_000 + number, "f", (0,), 0.0, NEVER, timeout_s, urgency=1, pinned=pinned) for number in range(count)
    ]


@pytest.mark.parametrize("policy", ["casc", "fluid", "slack-fraction", "slackfit"])
@pytest.mark.parametrize(("slots", "rate", "slo_s"), [(1, 60.0, 0.1), (1, 40.0, 0.012), (2, 150.0, 0.1)])
@pytest.mark.parametrize("pinned", [None, "large"])
def test_batch_work_lowers_nobodys_attainment(
    policy: str, slots: int, rate: float, slo_s: float, pinned: str | None
) -> None:
    """Beside a backlog of batch work as many are in time as without it, but for one of a hundred."""
    alone = serve(FAMILY, policy, interactive(rate, slo_s), slots)
    beside = serve(FAMILY, policy, [*spare(2000, pinned, 60.0), *interactive(rate, slo_s)], slots)
    met = sum(record.slo_met for record in beside if record.slo_s != NEVER)
    assert met >= sum(record.slo_met for record in alone) - 0.01 * len(alone)
    done = [record for record in beside if record.slo_s == NEVER and record.variant]
    assert done, "there was spare time"
    assert {record.reason for record in done} <= {Reason.SPARE_CAPACITY, Reason.PINNED}


@pytest.mark.parametrize("policy", ["casc", "slack-fraction"])
def test_batch_work_is_not_starved_for_ever(policy: str) -> None:
    """At a fifth of the capacity hundreds of rows are all answered while others come, best variant first in line."""
    records = serve(FAMILY, policy, [*spare(300), *interactive(40.0, 0.1)])
    ended = [record.finished_s for record in records if record.slo_s == NEVER]
    assert len(ended) == 300
    assert max(ended) < SECONDS


def test_a_row_too_long_for_others_to_wait_for_runs_when_they_stay_away() -> None:
    """`large` takes 10 ms and others have 12: on one slot it waits for the end of their stream, on two it need not."""
    stream = interactive(40.0, 0.012)
    ends_s = stream[-1].arrival_s
    (one,) = (record for record in serve(FAMILY, "casc", [*spare(1, "large"), *stream]) if record.slo_s == NEVER)
    (two,) = (record for record in serve(FAMILY, "casc", [*spare(1, "large"), *stream], 2) if record.slo_s == NEVER)
    assert (one.variant, two.variant) == ("large", "large")
    assert one.finished_s < 0.02 or ends_s < one.finished_s < ends_s + 30.0
    assert two.finished_s < ends_s


def test_the_family_of_these_tests_is_as_they_say() -> None:
    """A row of `large` takes ten milliseconds."""
    assert isinstance(FAMILY, Family)
    assert FAMILY.variants[2].latency.median_s[0][0] == 0.010
