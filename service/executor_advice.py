"""What profiles recommend of slots and threads, said once at the start; it is not followed by itself."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from service.loaded_family import LoadedFamily
from service.settings import Settings

logger = logging.getLogger("pareto.gateway")


def tell_executors(settings: Settings, families: Mapping[str, LoadedFamily]) -> None:
    """Log it for each family where the settings leave slots and threads open."""
    if not settings.model_fields_set.isdisjoint(("slots", "threads_per_slot", "devices")):
        return
    for name, family in families.items():
        if (measured := family.profile.executors) is not None:
            logger.info(
                "family %s: measured best here are slots = %d and threads_per_slot = %d; serving with %d and %d",
                name,
                measured.recommended_slots,
                measured.recommended_threads,
                settings.slot_count,
                settings.threads_per_slot,
            )
