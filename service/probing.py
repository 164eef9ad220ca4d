"""Trying a variant that broke, away from all requests: the rows are labelled samples of its family."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from router.contract import Reason, Spell
from service.hidden_families import model_of
from service.loading import LoadedFamily, sample_rows
from service.paths import one_line
from service.runner import fault_of, run_variant
from variants.preparation import Row
from variants.repository import Repository, RepositoryError

logger = logging.getLogger("pareto.quarantine")


class ThreadProbe:
    """Runs a variant on a thread of its own: for faults that a thread survives."""

    def __init__(self, families: Mapping[str, LoadedFamily], repository: Repository) -> None:
        self._families = families
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
        try:
            for batch in (rows[:1], rows) if rows else ():
                run_variant(loaded, spell.variant, batch)
        except Exception as error:  # noqa: BLE001 - whatever a runtime raises is what the probe is for
            logger.warning("family %s: variant %s still breaks: %s", spell.family, spell.variant, one_line(error))
            return fault_of(error)
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
