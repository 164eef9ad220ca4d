"""The last steps before a replica takes requests: saying what was measured for it, and settling the interpreter."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Mapping

from service.loading import LoadedFamily
from service.settings import Settings

logger = logging.getLogger("pareto.gateway")


def tell_executors(settings: Settings, families: Mapping[str, LoadedFamily]) -> None:
    """Say what profiles recommend where the settings leave slots and threads open; it is not followed by itself."""
    if not settings.model_fields_set.isdisjoint(("slots", "threads_per_slot")):
        return
    for name, family in families.items():
        if (measured := family.executors) is not None:
            logger.info(
                "family %s: measured best here are slots = %d and threads_per_slot = %d; serving with %d and %d",
                name,
                measured.recommended_slots,
                measured.recommended_threads,
                settings.slot_count,
                settings.threads_per_slot,
            )


def settle_interpreter(switch_interval_s: float) -> None:
    """Keep the garbage collector and the interpreter's thread switching out of the way of requests."""
    sys.setswitchinterval(switch_interval_s)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
