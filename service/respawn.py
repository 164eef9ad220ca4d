"""A serving process that has ended is started again soon: left to itself, BentoML looks every ten seconds."""

from __future__ import annotations

import logging
from functools import wraps
from typing import Any

logger = logging.getLogger("pareto.bento")

LOOK_EVERY_MS = 1000.0


def look_often() -> None:
    """Have the supervisor that this process is about to run look for ended processes every second.

    BentoML gives its period to circus by itself, so circus' controller is changed: it is all that uses it. Where
    BentoML supervises otherwise, nothing happens.
    """
    try:
        # BentoML's own dependency, whatever brings it; no gateway ends because there is another one.
        from circus.controller import Controller  # type: ignore[import-untyped]  # noqa: PLC0415 - see above
    except ImportError:
        logger.warning("BentoML supervises otherwise than known: a process that ends may be started again late")
        return
    start = Controller.start

    @wraps(start)
    def started(controller: Any) -> None:
        controller.check_delay = min(controller.check_delay, LOOK_EVERY_MS)
        start(controller)

    Controller.start = started
