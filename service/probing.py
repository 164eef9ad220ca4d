"""Trying a variant that broke, away from all requests: the rows are labelled samples of its family."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

from router.contract import Reason, Spell
from service.crash_marker import CrashMarker
from service.hidden_families import model_of
from service.loading import LoadedFamily, sample_rows
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

    async def __call__(self, spell: Spell) -> Reason | None:
        """See `service.dispatcher.Probe`."""
        return await asyncio.to_thread(self._try, spell)

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
                for batch in (rows[:1], rows) if rows else ():
                    run_variant(loaded, spell.variant, batch)
        except Exception as error:
            fault = fault_of(error)
            if fault is Reason.EXECUTOR_LOST:
                raise
            logger.warning("family %s: variant %s still breaks: %s", spell.family, spell.variant, one_line(error))
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
