"""The outer loop's edge: asks Prometheus every few seconds and tells the scheduler what the rule makes of it.

It stands beside the request path. Whatever is wrong with the server, requests are answered as without one: advice that
is not renewed is forgotten after its age, by the scheduler itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from socket import gethostname
from time import monotonic
from typing import TYPE_CHECKING

from router.contract import Hints
from router.outer_loop import OuterLoop
from service.outer_loop_queries import Answer, Windows, answer_of, expression
from service.prometheus import Prometheus, ReadingError, Result

if TYPE_CHECKING:
    from service.gateway import Gateway

logger = logging.getLogger("pareto.outer_loop")

MOST_WAIT_S = 300.0
"""Between two attempts while the server cannot be read; it doubles up to this."""
READINGS_OF_AGE = 4
"""Advice, and what the server knows, may be as old as so many readings are apart."""
LEAST_AGE_S = 60.0
"""And this old in any case: Prometheus scrapes once a minute where nobody says otherwise."""
MOST_TIMEOUT_S = 5.0


class OuterLoopReader:
    """Reads until it is stopped. What it last saw is for metrics and the page.

    `targets` tells the share of requests to be in time of each family that is served, `advise` takes the advice;
    `every_s` is the time from one reading to the next. Start and stop it on the event loop.
    """

    def __init__(
        self,
        prometheus: Prometheus,
        targets: Callable[[], Mapping[str, float]],
        advise: Callable[[Hints], None],
        windows: Windows,
        every_s: float,
        match: str = "",
        host: str = "",
        *,
        max_age_s: float | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._prometheus = prometheus
        self._targets = targets
        self._advise = advise
        self._every_s = every_s
        self._expression = expression(windows, match, host)
        self._max_age_s = max(LEAST_AGE_S, READINGS_OF_AGE * every_s) if max_age_s is None else max_age_s
        self._rule = OuterLoop(self._max_age_s)
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._failures = 0
        self._last_fault: Result | None = None
        self._evaluated_s = 0.0
        self.results: Counter[Result] = Counter()
        """Attempts by what came of them."""
        self.rejected: Counter[str] = Counter()
        """Values that could not be believed, by signal."""
        self.changes: Counter[tuple[str, str]] = Counter()
        """Changes of caution by family and direction, `up` or `down`."""
        self.last: Answer | None = None
        """What was read last; it may be old."""
        self._hints: Hints | None = None

    def start(self) -> None:
        """Begin to read."""
        self._task = asyncio.create_task(self._run(), name="outer-loop")

    def stop(self) -> None:
        """Read no more; what was advised is forgotten by its age."""
        if self._task is not None:
            self._task.cancel()

    @property
    def hints(self) -> Hints | None:
        """The advice that is in force, `None` where there is none."""
        hints = self._hints
        return hints if hints is not None and self._clock() - hints.issued_s <= hints.max_age_s else None

    @property
    def age_s(self) -> float | None:
        """Seconds since the last reading that was taken; `None` before the first."""
        return None if self._hints is None else self._clock() - self._hints.issued_s

    @property
    def pressed(self) -> bool:
        """Whether the host is under pressure, as last read."""
        return self._rule.pressed

    async def read(self) -> None:
        """One reading. Raises `ReadingError`."""
        vector = await self._prometheus.query(self._expression)
        targets = self._targets()
        answer = answer_of(vector, targets.keys(), self._max_age_s)
        before_s, self._evaluated_s = self._evaluated_s, vector.evaluated_s
        if vector.evaluated_s <= before_s:
            # Its clock may also have been set back: then only this one is lost.
            raise ReadingError(Result.STALE, "it repeats an earlier answer: is there a cache in front of it?")
        self.rejected.update(answer.rejected)
        hints = self._rule.read(answer.readings, targets, self._clock())
        self._count_changes({} if self._hints is None else self._hints.caution, hints.caution)
        self.last, self._hints = answer, hints
        self._advise(hints)

    async def _run(self) -> None:
        try:
            while True:
                wait_s = await self._attempt()
                await asyncio.sleep(wait_s)
        finally:
            await self._prometheus.close()

    async def _attempt(self) -> float:
        """Read once; returns seconds until the next attempt."""
        try:
            await self.read()
        except ReadingError as error:
            self._failed(error.result, str(error))
        except Exception:
            # It must neither end the loop nor fill the log.
            if self._last_fault is not Result.INTERNAL_ERROR:
                logger.exception("a reading failed in a way that nobody foresaw")
            self._failed(Result.INTERNAL_ERROR, "see above")
        else:
            self.results[Result.TAKEN] += 1
            if self._last_fault is not None:
                logger.info("%s is read again", self._prometheus.shown)
            self._failures, self._last_fault = 0, None
            return self._every_s
        return float(min(self._every_s * 2.0 ** min(self._failures, 10), max(MOST_WAIT_S, self._every_s)))

    def _failed(self, result: Result, message: str) -> None:
        self.results[result] += 1
        self._failures += 1
        if result is not self._last_fault:
            logger.warning(
                "%s: %s; requests are answered as without it, and it is tried again", self._prometheus.shown, message
            )
        self._last_fault = result

    def _count_changes(self, before: Mapping[str, float], after: Mapping[str, float]) -> None:
        for family in before.keys() | after.keys():
            old, new = before.get(family, 1.0), after.get(family, 1.0)
            if old != new:
                self.changes[family, "up" if new > old else "down"] += 1


def outer_loop_of(gateway: Gateway) -> OuterLoopReader | None:
    """The outer loop that a gateway's settings ask for, not started yet; `None` where they ask for none."""
    settings = gateway.settings
    if settings.prometheus_url is None:
        return None
    return OuterLoopReader(
        Prometheus(settings.prometheus_url, min(MOST_TIMEOUT_S, settings.prometheus_every_s)),
        gateway.slo_targets,
        gateway.advise,
        Windows(settings.prometheus_short_s, settings.prometheus_long_s),
        settings.prometheus_every_s,
        settings.prometheus_match or "",
        settings.prometheus_host or gethostname(),
    )
