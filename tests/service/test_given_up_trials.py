"""Trials see what a revision on trial did not answer before its caller gave up, by whichever protocol that came."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from service.intake import Intake


async def _given_up(monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], list[int]]:
    pending: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    request, asked = SimpleNamespace(id=7, timeout_s=1e12), SimpleNamespace(inputs={}, variant=None)
    told, cancelled = list[Any](), list[int]()

    async def prepared(*_: object) -> object:
        return SimpleNamespace(values=[])

    monkeypatch.setattr("service.intake.prepared", prepared)
    monkeypatch.setattr(Intake, "_submitted", lambda *_: (request, pending))
    canaries = SimpleNamespace(is_running=lambda _: True, tried=lambda *said: told.append(said[-1]))
    gateway: Any = SimpleNamespace(canaries=canaries, dispatcher=SimpleNamespace(cancel=cancelled.append))
    trial: Any = SimpleNamespace(loaded=None)
    call: Any = asked
    task = asyncio.create_task(Intake(gateway)._try(trial, call))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    pending.set_result("cancelled")
    await asyncio.sleep(0)
    return told, cancelled


def test_a_trial_is_told_of_who_gave_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request is cancelled with its task, and its record counts as that of a caller by HTTP."""
    assert asyncio.run(_given_up(monkeypatch)) == (["cancelled"], [7])
