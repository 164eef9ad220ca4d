"""Probes of variants in quarantine, as the scheduler wants them: in tasks beside the requests, each with a limit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from router.contract import Spell
from router.words import Reason

logger = logging.getLogger("pareto.dispatcher")

PROBE_WITHIN_S = 60.0
"""A variant that has not answered its probe by then hangs: it runs nine rows, one and then eight."""

Probe = Callable[[Spell], Awaitable[Reason | None]]
"""Tries a variant in quarantine, away from all requests: by what it failed, `None` where it answered.

What is no fault of a variant (`router.quarantine.FAULTS`) says that it could not be tried."""


async def trust(_spell: Spell) -> Reason | None:
    """No probe at all: the next request tries the variant."""
    return None


class Prober:
    """Has variants tried with `probe`, each within `within_s`; `probed` is told by what each one failed, if it did."""

    def __init__(self, probe: Probe, within_s: float, probed: Callable[[Spell, Reason | None], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._probe = probe
        self._within_s = within_s
        self._probed = probed
        self._probing: set[asyncio.Task[None]] = set()

    def begin(self, spells: Iterable[Spell]) -> None:
        """Try these."""
        for spell in spells:
            task = self._loop.create_task(self._try(spell))
            self._probing.add(task)
            task.add_done_callback(self._probing.discard)

    def stop(self) -> None:
        """Nobody wants to know any more."""
        for task in self._probing:
            task.cancel()

    async def _try(self, spell: Spell) -> None:
        try:
            fault = await asyncio.wait_for(self._probe(spell), self._within_s)
        except TimeoutError:
            said = "family %s: variant %s has not answered its probe within %g s"
            logger.warning(said, spell.family, spell.variant, self._within_s)
            fault = Reason.HUNG
        except Exception:
            # It says nothing of the variant, and must not keep it away for ever.
            logger.exception("family %s: variant %s could not be probed", spell.family, spell.variant)
            fault = Reason.EXECUTOR_LOST
        self._probed(spell, fault)
