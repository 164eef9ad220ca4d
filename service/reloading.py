"""Reading the settings again while requests flow: what can change does, what needs a restart is said."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import orjson

from service.configuration import SettingsError, reload_settings
from service.gateway import Gateway
from service.memory import budget_bytes
from service.oip.errors import ProtocolError
from service.repository_control import RepositoryControl
from service.settings import FamilySettings, Settings

logger = logging.getLogger("pareto.reloading")

AT_ONCE = frozenset({"tenants", "timeout_s", "default_priority", "margin", "drain_s", "admin"})
"""Settings of the gateway that are read at every use, or told to who uses them."""
FAMILY_AT_ONCE = frozenset({"slo_ms", "timeout_ms", "when_late", "margin"})
"""Settings of a family likewise; the others have it loaded anew."""


class Reloading:
    """Applies settings that are read again to a running gateway. `read` is what reads them."""

    def __init__(
        self, gateway: Gateway, control: RepositoryControl, read: Callable[[], Settings] = reload_settings
    ) -> None:
        self._gateway = gateway
        self._control = control
        self._read = read
        self._turn = asyncio.Lock()

    async def reload(self) -> bytes:
        """Read and apply; returns JSON with `applied` and `needs_restart`, lists of settings by name.

        Raises `ProtocolError` 400 for settings with a fault, which change nothing, and for a family that cannot be
        loaded as they want it, after the others were applied.
        """
        async with self._turn:
            try:
                wanted = await asyncio.to_thread(self._read)
            except SettingsError as error:
                raise ProtocolError(400, "settings are not applied: " + "; ".join(str(error).splitlines())) from None
            applied, restart = await self._apply(wanted)
        logger.info("settings read again: applied %s; a restart is needed for %s", applied or "-", restart or "-")
        return orjson.dumps({"applied": applied, "needs_restart": restart})

    async def _apply(self, wanted: Settings) -> tuple[list[str], list[str]]:
        gateway = self._gateway
        now = gateway.settings
        changed = [name for name in Settings.model_fields if getattr(wanted, name) != getattr(now, name)]
        budget = {"memory_budget", "pinned"} if gateway.residency is not None and wanted.memory_budget else set()
        possible = AT_ONCE | budget | {"families"}
        restart = [name for name in changed if name not in possible]
        values: dict[str, Any] = {name: getattr(wanted, name) for name in changed if name in possible}
        gateway.apply(now.model_copy(update=values))
        if gateway.residency is not None and wanted.memory_budget is not None:
            gateway.residency.allow(budget_bytes(wanted.memory_budget), wanted.pinned)
        applied = [name for name in changed if name in possible and name != "families"]
        for name in sorted(now.families.keys() | wanted.families.keys()):
            before, after = now.family(name), wanted.family(name)
            fields = [field for field in FamilySettings.model_fields if getattr(before, field) != getattr(after, field)]
            applied += [f"families.{name}.{field}" for field in fields]
            if set(fields) - FAMILY_AT_ONCE and name in gateway.families:
                await self._control.load(name, again=True)
        return applied, restart
