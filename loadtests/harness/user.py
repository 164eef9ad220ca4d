"""Locust's user, of which each generator has one, and the desk where its work waits."""

from __future__ import annotations

from collections.abc import Callable

import gevent  # type: ignore[import-untyped]  # gevent carries no types
from gevent.queue import Queue  # type: ignore[import-untyped]  # gevent carries no types
from locust import User, task


class Desk:
    """Work that waits for a user. A user that is stopped leaves; what it has begun goes on to its end."""

    def __init__(self) -> None:
        self._jobs: Queue = Queue()

    def put(self, job: Callable[[], None]) -> None:
        """Have something done in a greenlet of its own, once there is a user."""
        self._jobs.put(gevent.Greenlet(job))

    def serve_one(self) -> None:
        """Do the next piece of work, and wait for it."""
        job = self._jobs.get()
        job.start()
        job.join()


DESK = Desk()
"""The desk of this process: locust makes its users itself and hands them nothing."""


class OpenLoopUser(User):
    """Sends whole plans. Locust counts one user in each generator, however many requests are open."""

    @task
    def send_what_comes(self) -> None:
        """Send one plan; locust calls this again and again."""
        DESK.serve_one()
