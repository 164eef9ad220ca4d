"""A gateway in this process, for tests of what is loaded, unloaded and set anew."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from service.gateway import Gateway, Phase
from service.settings import Settings
from variants.repository import RepositoryError


async def started(settings: Settings, scenario: Callable[[Gateway], Awaitable[None]]) -> None:
    gateway = Gateway(settings)
    await gateway.start()
    assert Phase.READY is gateway.phase
    try:
        await scenario(gateway)
    finally:
        gateway.abandon()


def serve(models: Path, budget: str | None, scenario: Callable[[Gateway], Awaitable[None]]) -> None:
    """Run a scenario with a gateway that is ready."""
    asyncio.run(started(Settings(models=models, slots=1, memory_budget=budget), scenario))


def served(gateway: Gateway) -> dict[str, tuple[str, ...]]:
    """The variants of each family."""
    return {name: tuple(v.name for v in loaded.family.variants) for name, loaded in gateway.families.items()}


def fail(*_: object) -> Any:
    raise RepositoryError("read-only")
