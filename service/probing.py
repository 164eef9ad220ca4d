"""Trying a variant that broke, away from all requests: the rows are labelled samples of its family."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from threading import Thread

from router.contract import Spell
from router.quarantine import FAULTS
from router.words import Reason
from service.crash_marker import CrashMarker
from service.hidden_families import model_of
from service.loaded_family import LoadedFamily
from service.loading import sample_rows
from service.paths import one_line
from service.runner import fault_of, run_variant
from variants.preparation import Row
from variants.repository import Repository, RepositoryError

logger = logging.getLogger("pareto.quarantine")


class ThreadProbe:
    """Runs a variant from a thread of its own. Where models are open in other processes, it breaks none of this one."""

    def __init__(
        self, families: Mapping[str, LoadedFamily], repository: Repository, marker: CrashMarker | None = None
    ) -> None:
        self._families = families
        self._marker = marker
        self._repository = repository
        self._kept: dict[str, tuple[str, Sequence[Row]]] = {}
        """Rows by model, with their revision: of those alone that have broken."""
        self._threads: dict[tuple[str, str, str], Thread] = {}
        """Those that try a variant. What hangs in one cannot be ended, and is not tried again beside it."""

    async def __call__(self, spell: Spell) -> Reason | None:
        """See `service.prober.Probe`. Whoever waits no longer leaves the thread behind; the process can end."""
        key = spell.family, spell.revision, spell.variant
        self._threads = {name: thread for name, thread in self._threads.items() if thread.is_alive()}
        if key in self._threads:
            return Reason.HUNG
        tried: Future[Reason | None] = Future()
        # So that it takes its result, though nobody waits for that any more.
        tried.set_running_or_notify_cancel()

        def run() -> None:
            try:
                tried.set_result(self._try(spell))
            except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
                tried.set_exception(error)

        # Not one of a pool, which would wait for it when the process ends.
        thread = self._threads[key] = Thread(target=run, name=f"probe of {spell.variant}", daemon=True)
        thread.start()
        return await asyncio.wrap_future(tried)

    def _try(self, spell: Spell) -> Reason | None:
        loaded = self._families.get(spell.family)
        if loaded is None or spell.variant not in loaded.paths:
            # It was unloaded meanwhile, and is tried when it is loaded.
            return None
        rows = self._rows(loaded, spell)
        marker = self._marker
        noted = nullcontext() if marker is None else marker.probing(spell.family, spell.revision, spell.variant)
        try:
            with noted:
                # On each device: nobody says on which one it broke.
                for device in ("", *loaded.elsewhere):
                    for batch in (rows[:1], rows) if rows else ():
                        run_variant(loaded, spell.variant, batch, device=device)
        except Exception as error:  # noqa: BLE001 - whatever it raises is what is to be found out
            if spell.variant not in loaded.paths:
                # Closed under the probe: nobody waits for that, and it says nothing of the variant.
                return None
            fault = fault_of(error)
            went = "breaks under its probe" if fault in FAULTS else "could not be probed"
            logger.warning("family %s: variant %s %s: %s", spell.family, spell.variant, went, one_line(error))
            return fault
        return None

    def _rows(self, loaded: LoadedFamily, spell: Spell) -> Sequence[Row]:
        """Without any, the next request tries it."""
        model = model_of(spell.family)
        revision, rows = self._kept.get(model, ("", ()))
        if revision != spell.revision:
            try:
                rows = sample_rows(self._repository.open(model, spell.revision), loaded.preparer)
            except RepositoryError as error:
                logger.warning("family %s: no rows to try %s with: %s", spell.family, spell.variant, one_line(error))
                return ()
            self._kept[model] = spell.revision, rows
        return rows
