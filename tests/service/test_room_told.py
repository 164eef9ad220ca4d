"""What the memory budget leaves for models, as the log tells it."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from service.canary_control import CanaryControl
from service.descriptions import Descriptions
from service.gateway import Gateway
from service.hidden_families import hidden_name
from service.oip.errors import ProtocolError
from service.repository_control import COLD, RepositoryControl
from service.residency import Residency
from service.room_words import TOO_LARGE
from tests.service.controlled import serve
from tests.service.families import sign_model, write_family
from tests.service.test_appraisal import ELSE_BYTES, MB, Measured, Sized
from variants.repository import Repository


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


def test_who_does_not_fit_any_more_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """The process grows with its first requests; that a pinned family is among them is said."""
    small, large = Sized("small", 10 * MB), Sized("large", 20 * MB)
    pieces: Any = {"small": small, "large": large}
    footprint = Measured((small, large))

    async def scenario() -> None:
        residency = Residency(pieces, ELSE_BYTES + 45 * MB, ["large"], 1, footprint)
        try:
            await residency.tell_of_room()
            footprint.else_bytes += 8 * MB
            caplog.clear()
            for _ in range(3):
                await residency.tell_of_room()
            (told,) = caplog.records
            assert told.levelno == logging.ERROR
            assert told.getMessage().endswith("of 1 family: large (takes 40.0 MB); pinned of these: large")
        finally:
            residency.stop()

    with caplog.at_level(logging.INFO, "pareto.residency"):
        asyncio.run(scenario())


@pytest.mark.parametrize("too_large", [{"small", "large"}, {"large"}, set[str]()])
def test_a_family_that_does_not_fit_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, too_large: set[str]
) -> None:
    """The index says so of each of its variants, where it says of others that they come with the first request."""
    for name in ("small", "large"):
        write_family(Repository(tmp_path), name, {"only": (sign_model(), 0.8)})

    async def scenario(gateway: Gateway) -> None:
        assert gateway.residency is not None
        gateway.residency.allow(1, ())
        while any(piece.paths for piece in gateway.residency.pieces.values()):
            await gateway.residency._step({})
        monkeypatch.setattr(gateway.residency.room, "lacks_room", lambda name, variant=None: name in too_large)
        monkeypatch.setattr(Gateway, "is_welcoming", True)
        control = RepositoryControl(gateway, lambda: None)
        descriptions = Descriptions(gateway, control, CanaryControl(gateway, control))
        told = {entry["name"]: entry["reason"] for entry in descriptions.index(only_ready=False)}
        assert {name: TOO_LARGE if name in too_large else COLD for name in told} == told
        for name in told:
            if name in too_large:
                with pytest.raises(ProtocolError, match=f"{name} {TOO_LARGE}") as refused:
                    descriptions.check_ready(name, None)
                assert 503 == refused.value.status
            else:
                descriptions.check_ready(name, None)

    serve(tmp_path, "8GiB", scenario)
