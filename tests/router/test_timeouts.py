"""Expiry: in order, only of the unfinished, and without memory of the finished."""

from __future__ import annotations

from router.request import NEVER
from router.timeouts import Timeouts


def test_only_unfinished_requests_expire_in_order() -> None:
    """The earliest due comes first; finished ones are passed over."""
    live = {1, 2, 3}
    timeouts = Timeouts(live)
    for request_id, at_s in ((1, 3.0), (2, 1.0), (3, 2.0)):
        timeouts.arm(request_id, at_s)
    live.remove(3)
    assert [timeouts.pop_due(2.5), timeouts.pop_due(2.5), timeouts.next_s()] == [2, None, 3.0]
    live.remove(1)
    assert timeouts.next_s() == NEVER


def test_memory_follows_the_unfinished_not_the_rate() -> None:
    """A hundred thousand requests, answered long before their timeout, leave at most the slack of the sweep."""
    live: set[int] = set()
    timeouts = Timeouts(live)
    for request_id in range(100_000):
        live.add(request_id)
        timeouts.arm(request_id, request_id * 0.001 + 30.0)
        live.discard(request_id - 10)
    assert len(timeouts._heap) <= 2 * len(live) + 1025
