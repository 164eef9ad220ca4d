"""Variants that broke, as operators see it: a line in the log for each spell of quarantine, and counts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from router.contract import BatchRecord, Record, Spell
from router.quarantine import FAULTS, HARD
from router.words import Reason
from service.hidden_families import is_hidden, model_of

if TYPE_CHECKING:
    from router.scheduler import Scheduler

logger = logging.getLogger("pareto.quarantine")


class Breakages:
    """Counts faults and retries, by closed sets of words; `broke` learns of each fault of a revision on trial."""

    def __init__(self, broke: Callable[[Spell], None]) -> None:
        self._broke = broke
        self._faults: dict[tuple[str, str, str], int] = {}
        self._retried: dict[str, int] = {}

    def told(self, spells: Sequence[Spell]) -> None:
        """Spells of quarantine have begun, been made longer, or ended."""
        for spell in spells:
            model = model_of(spell.family)
            if spell.over:
                logger.info("family %s: variant %s answers again", model, spell.variant)
                continue
            self._fault(spell.family, spell.variant, spell.reason)
            said = "family %s: variant %s of revision %s is in quarantine: %s, strike %d"
            logger.warning(said, model, spell.variant, spell.revision, spell.reason.value, spell.strikes)
            if is_hidden(spell.family):
                self._broke(spell)

    def observe(self, records: Sequence[Record], batches: Sequence[BatchRecord]) -> None:
        """See `service.observers.Observer`."""
        for record in records:
            if record.retried:
                self._retried[record.family] = self._retried.get(record.family, 0) + 1
        for batch in batches:
            # Other faults of batches begin a spell, and are counted by that.
            if batch.fault in FAULTS and batch.fault not in HARD:
                self._fault(batch.dispatch.family, batch.dispatch.variant, batch.fault)

    def _fault(self, family: str, variant: str, reason: Reason) -> None:
        key = (model_of(family), variant, reason.value)
        self._faults[key] = self._faults.get(key, 0) + 1

    def collect(self, scheduler: Scheduler) -> Iterator[Metric]:
        """As metric families; called on a thread of its own."""
        faults = CounterMetricFamily(
            "pareto_variant_faults",
            "Batches and probes under which a variant broke, by how; while it is in quarantine, probes alone.",
            labels=("model", "variant", "reason"),
        )
        for key, count in list(self._faults.items()):
            faults.add_metric(key, count)
        retried = CounterMetricFamily(
            "pareto_retried_requests", "Requests of which a row was tried again on another variant.", labels=("model",)
        )
        held = GaugeMetricFamily(
            "pareto_variant_quarantined",
            "1 while a variant answers nobody because it broke.",
            labels=("model", "variant"),
        )
        for name, family in scheduler.families.items():
            if not is_hidden(name):
                retried.add_metric((name,), self._retried.get(name, 0))
                broken = scheduler.quarantined(name)
                for variant in family.variants:
                    held.add_metric((name, variant.name), float(variant.name in broken))
        lost = GaugeMetricFamily("pareto_slots_lost", "Executor slots that are out of service.")
        lost.add_metric((), scheduler.lost_slots)
        yield from (faults, retried, held, lost)
