"""Locust's user, of which each generator has one."""

from __future__ import annotations

import gevent  # type: ignore[import-untyped]  # gevent carries no types
from locust import User, task


class OpenLoopUser(User):
    """Stands for the whole load of its generator, so that locust's page counts and stops what there is.

    It carries no request: plans are sent by `Station`, also where locust moves users between workers.
    """

    @task
    def stand_for_it(self) -> None:
        """Until locust stops it."""
        gevent.sleep(1.0)
