"""A serving process that has ended is started again soon: left to itself, BentoML looks every ten seconds."""

from __future__ import annotations

from functools import wraps

from circus.controller import Controller

LOOK_EVERY_MS = 1000.0


def look_often() -> None:
    """Have the arbiter that this process is about to run look for ended processes every second.

    BentoML gives its period to circus by itself, so circus' controller is changed: it is all that uses it.
    """
    start = Controller.start

    @wraps(start)
    def started(controller: Controller) -> None:
        controller.check_delay = min(controller.check_delay, LOOK_EVERY_MS)
        start(controller)

    Controller.start = started
