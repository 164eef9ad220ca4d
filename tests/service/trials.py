"""A gateway with a family of several revisions, and what a test of trials asks of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np

from router.canary import Trial
from router.request import Origin
from service.canary_control import CanaryControl
from service.canary_trial import State
from service.gateway import Gateway, Phase
from service.oip.terms import TermDefaults, Terms
from service.repository_control import RepositoryControl
from service.settings import Settings
from service.work import Answer

ALL = Trial(share=0.999, answers=10**6)
DEFAULTS = TermDefaults(10.0, 30.0)

Scenario = Callable[[Gateway, CanaryControl, RepositoryControl], Awaitable[None]]


async def started(settings: Settings, scenario: Scenario) -> None:
    """Run a scenario with a gateway of these settings that is ready."""
    gateway = Gateway(settings)
    await gateway.start()
    assert Phase.READY is gateway.phase
    control = RepositoryControl(gateway, lambda: None)
    try:
        await scenario(gateway, CanaryControl(gateway, control), control)
    finally:
        gateway.abandon()


def serve(models: Path, budget: str | None, scenario: Scenario) -> None:
    """Run a scenario with a gateway that is ready."""
    asyncio.run(started(Settings(models=models, slots=1, memory_budget=budget), scenario))


async def ask(gateway: Gateway, name: str = "one", variant: str | None = None, tenant: str = "") -> tuple[Answer, str]:
    """The answer to one row, and the revision that gave it."""
    terms = Terms(10.0, 30.0, 0.0, 0, DEFAULTS.when_late, tenant or DEFAULTS.tenant, "default")
    rows = {"x": np.array([[1, 0, 0, 0]], np.float32)}
    answer, loaded = await gateway.intake.infer(
        "f", rows, terms, asyncio.get_running_loop().time(), variant, None, Origin(name)
    )
    assert "f" == answer.record.family
    return answer, loaded.family.revision


async def settled(gateway: Gateway) -> dict[str, str]:
    """The revisions that the scheduler knows, once those that end are gone."""
    scheduler = gateway.scheduler
    assert scheduler is not None
    await asyncio.gather(*gateway.canaries.retiring)
    assert {} == gateway.canaries.families
    return {name: family.revision for name, family in scheduler.families.items()}


def state(gateway: Gateway) -> State:
    """How the last trial of the family fares."""
    return gateway.canaries.reports["f"].state
