"""What the memory budget leaves for models, as the log tells it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from service.hidden_families import hidden_name
from service.residency import Residency
from tests.service.test_appraisal import ELSE_BYTES, MB, Measured, Sized


def test_room_is_told_whenever_others_are_to_fit(caplog: pytest.LogCaptureFixture) -> None:
    """Who is pinned or served changes who has no room; a revision on trial, or the same once more, is no news."""
    small, large = Sized("small", 10 * MB), Sized("large", 20 * MB)
    pieces: Any = {"small": small}

    def said() -> list[tuple[int, bool]]:
        told = [(record.levelno, "not even the smallest" in record.getMessage()) for record in caplog.records]
        caplog.clear()
        return told

    async def scenario() -> None:
        residency = Residency(pieces, ELSE_BYTES + 45 * MB, (), 1, Measured((small, large)))
        fits, lacks = [(logging.INFO, False)], [(logging.ERROR, True)]
        new: Any = large
        trial: Any = Sized(hidden_name("large", "second", 1), 20 * MB)
        try:
            await residency.tell_of_room()
            assert fits == said()
            await residency.exchange("large", new, lambda: None)
            await residency.tell_of_room()
            assert fits == said()
            residency.allow(ELSE_BYTES + 45 * MB, ["large"])
            await residency.tell_of_room()
            assert lacks == said()
            await residency.exchange(trial.name, trial, lambda: None)
            await residency.tell_of_room()
            assert [] == said()
            await residency.exchange("large", None, lambda: None)
            await residency.tell_of_room()
            assert fits == said()
        finally:
            residency.stop()

    with caplog.at_level(logging.INFO, "pareto.residency"):
        asyncio.run(scenario())
