"""What becomes of requests when the scheduler, or a rule that it asks, raises: each of them ends all the same."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from router.contract import Poll
from router.scheduler import Scheduler
from router.words import Reason

logger = logging.getLogger("pareto.dispatcher")


@contextmanager
def whatever_raises(scheduler: Scheduler, now: float) -> Iterator[None]:
    """A rule that raises must not leave anybody without an outcome."""
    try:
        yield
    except Exception:
        logger.exception("the scheduler failed; every unfinished request ends with it")
        scheduler.abandon_all(now, Reason.INTERNAL_ERROR)


def polled(scheduler: Scheduler, now: float) -> Poll:
    """The scheduler's next poll. Unlike `whatever_raises`, what raises here costs no time where nothing does."""
    try:
        return scheduler.poll(now)
    except Exception:
        logger.exception("the scheduler failed; every unfinished request fails with it")
        scheduler.abandon_all(now, Reason.INTERNAL_ERROR)
        return scheduler.poll(now)
