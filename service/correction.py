"""What the router believes of variants, kept in step with audits: a variant that drifts is worth what it lost less.

Floors are judged by what is believed, as whoever asks for accuracy wants it now. The best variant that is loaded is
what the others are compared with, so the best of all never loses anything, and floors that could be kept still can.

A variant that nobody chooses any more is not compared any more either. Its comparisons are forgotten with
`Rules.window_s`; once they say too little to call it a drift, it is believed as it was measured, and tried again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from time import monotonic

from router.agreement import corrected
from router.family import Family
from router.scheduler import Scheduler
from service.live_quality import LiveQuality

logger = logging.getLogger("pareto.correction")

STEP = 0.01
"""Smaller changes of what is lost are not worth new tables."""
TICK_S = 1.0
"""Families that were compared since are looked at this often, and so are those that are believed to be worth less."""

Lost = Mapping[str, float]
"""By variant, the share in (0, 1] by which it is believed to be right less often than measured; others lost nothing."""
Believe = Callable[[Family, Lost], Awaitable[bool]]
"""Has the scheduler believe that of a family, given as it was measured; false where another one is served by now."""


Change = Callable[[Callable[[float], None]], None]
"""Calls a change of the scheduler with the time, on the event loop; see `service.dispatcher.Dispatcher.tell`."""


async def believe_at_once(
    scheduler: Scheduler, tell: Change, measured: Callable[[str], Family | None], family: Family, lost: Lost
) -> bool:
    """`Believe` where nothing else changes a family that is loaded; the tables are made off the event loop."""
    prepared = await asyncio.to_thread(lambda: scheduler.prepare(corrected(family, lost)))
    # Another one may have been loaded meanwhile.
    served = measured(family.name) is family
    if served:
        tell(partial(scheduler.replace, prepared))
    return served


class Correction:
    """Tells `believe` whenever what a family's variants have lost has changed by a step.

    `measured` has the family of a name that is served, as it was measured, None where there is none. A family that is
    loaded anew is another one, of which nothing is believed yet. All methods run on the event loop.
    """

    def __init__(self, quality: LiveQuality, measured: Callable[[str], Family | None], believe: Believe) -> None:
        self.changes = 0
        """How often another thing was believed than before."""
        self._quality = quality
        self._measured = measured
        self._believe = believe
        self._believed: dict[str, tuple[Family, Lost]] = {}
        self._compared: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Keep in step from now on."""
        self._task = asyncio.create_task(self._run())

    def stop(self) -> None:
        """Believe nothing new."""
        if self._task is not None:
            self._task.cancel()

    def compared(self, name: str) -> None:
        """Answers of the family of that name were compared."""
        self._compared.add(name)

    async def look(self, now: float) -> None:
        """Look once at every family of which something may have changed; one after the other."""
        names = self._compared | self._believed.keys()
        self._compared = set()
        for name in sorted(names):
            try:
                await self._look_at(name, now)
            except Exception:
                # What was believed before is believed on, and the next look tries again.
                self._compared.add(name)
                logger.exception("family %s: what is believed of it could not be changed", name)

    async def _look_at(self, name: str, now: float) -> None:
        family = self._measured(name)
        if family is None:
            self._believed.pop(name, None)
            return
        before_of, before = self._believed.get(name, (family, {}))
        if before_of is not family:
            self._believed.pop(name)
            before = {}
        lost = self._quality.lost(family, now)
        if lost.keys() == before.keys() and all(abs(share - before[variant]) < STEP for variant, share in lost.items()):
            return
        if not await self._believe(family, lost):
            # Another one has its place by now, of which nothing is believed yet.
            self._believed.pop(name, None)
            return
        if lost:
            self._believed[name] = family, lost
        else:
            self._believed.pop(name)
        self.changes += 1
        said = ", ".join(f"{variant} by {share:.3f}" for variant, share in lost.items())
        logger.warning("family %s: believed to be right less often than measured: %s", name, said or "no variant")

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            await self.look(monotonic())
