"""Trying a variant on a thread: one that hangs costs that thread alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from router.contract import Spell
from router.words import Reason
from service.probing import ThreadProbe
from variants.repository import Repository
from variants.session import SessionClosedError

SPELL = Spell(1, "f", "1", "v", Reason.HUNG, 1, 0.0)


class Hangs(ThreadProbe):
    """A variant that hangs until it may go on."""

    def __init__(self, root: Path) -> None:
        super().__init__({}, Repository(root))
        self.may_end = Event()

    def _try(self, spell: Spell) -> Reason | None:
        self.may_end.wait(10.0)
        return super()._try(spell)


def test_a_variant_that_hangs_is_not_tried_beside_itself(tmp_path: Path) -> None:
    """Nobody waits for its thread, which ends nothing and is ended by the process; others are tried."""

    async def run() -> list[Reason | None]:
        probe = Hangs(tmp_path)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(probe(SPELL), 0.01)
        assert [True] == [thread.daemon for thread in probe._threads.values()]
        (thread,) = probe._threads.values()
        hangs = await probe(SPELL)
        probe.may_end.set()
        other, _ = await asyncio.gather(probe(SPELL._replace(variant="w")), asyncio.to_thread(thread.join, 10.0))
        return [hangs, other, await probe(SPELL)]

    assert [Reason.HUNG, None, None] == asyncio.run(run())


@pytest.mark.parametrize(("is_evicted", "fault"), [(False, Reason.EXECUTOR_ERROR), (True, None)])
def test_what_is_unloaded_under_its_probe_is_not_to_blame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_evicted: bool, fault: Reason | None
) -> None:
    """Its session was closed: that says nothing of the variant, which is tried when it is loaded again."""
    paths: dict[str, object] = {"v": ()}
    loaded: Any = SimpleNamespace(paths=paths, elsewhere={})

    def breaks(*_: object, **__: object) -> None:
        if is_evicted:
            del paths["v"]
        raise SessionClosedError("is closed")

    monkeypatch.setattr("service.probing.run_variant", breaks)
    monkeypatch.setattr(ThreadProbe, "_rows", lambda *_: [np.zeros(1)])
    assert fault == asyncio.run(ThreadProbe({"f": loaded}, Repository(tmp_path))(SPELL))
