"""Reading the settings again while requests flow: what can change does, what needs a restart is said."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson

from service.configuration import SettingsError, reload_settings
from service.gateway import Gateway
from service.key_file import read_keys
from service.memory import budget_bytes
from service.oip.errors import ProtocolError
from service.repository_control import RepositoryControl
from service.scoped_settings import FamilySettings
from service.settings import Settings
from service.tls import checked_pair, load_certificate

logger = logging.getLogger("pareto.reloading")

AT_ONCE = frozenset(
    {"tenants", "timeout_s", "default_priority", "margin", "drain_s", "admin", "page_samples", "traces_share"}
    | {"access_log_share"}
)
"""Settings of the gateway that are read at every use, or told to who uses them."""
FAMILY_AT_ONCE = frozenset({"slo_ms", "slo_target", "timeout_ms", "when_late", "min_accuracy", "margin"})
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

        Keys and certificate are read again from where they were. Raises `ProtocolError` 400 for such or for settings
        with a fault, which change nothing, and, after all else was applied, for families that cannot be loaded as they
        want it: those keep their settings, and the next reload tries again.
        """
        async with self._turn:
            try:
                wanted = await asyncio.to_thread(self._read)
                keys = await asyncio.to_thread(read_keys, self._gateway.settings.keys_file)
                started = self._gateway.settings
                pair = await asyncio.to_thread(checked_pair, started) if started.ssl_certfile is not None else None
            except SettingsError as error:
                raise ProtocolError(400, "settings are not applied: " + "; ".join(str(error).splitlines())) from None
            applied, restart = self._apply(wanted)
            if keys != self._gateway.access.keys:
                self._gateway.access.keys = keys
                applied.append("API keys")
            if pair is not None:
                self._gateway.connections.renew(partial(load_certificate, settings=started), pair)
                applied.append("certificate")
            failed = await self._apply_to_families(wanted, applied)
        logger.info("settings read again: applied %s; a restart is needed for %s", applied or "-", restart or "-")
        if failed:
            first = failed[0]
            message = "; ".join(failure.message for failure in failed)
            raise ProtocolError(first.status, message, reason=first.reason, retry_after_s=first.retry_after_s)
        return orjson.dumps({"applied": applied, "needs_restart": restart})

    def _apply(self, wanted: Settings) -> tuple[list[str], list[str]]:
        gateway = self._gateway
        now = gateway.settings
        changed = [name for name in Settings.model_fields if getattr(wanted, name) != getattr(now, name)]
        budget = {"memory_budget", "pinned"} if gateway.residency is not None and wanted.memory_budget else set()
        possible = AT_ONCE | budget
        restart = [name for name in changed if name not in possible and name != "families"]
        values: dict[str, Any] = {name: getattr(wanted, name) for name in changed if name in possible}
        gateway.apply(now.model_copy(update=values))
        if gateway.residency is not None and wanted.memory_budget is not None:
            gateway.residency.allow(budget_bytes(wanted.memory_budget), wanted.pinned)
        return list(values), restart

    async def _apply_to_families(self, wanted: Settings, applied: list[str]) -> list[ProtocolError]:
        """One family after the other, so that one that fails keeps none from its own; appends to `applied`."""
        failed: list[ProtocolError] = []
        for name in sorted(self._gateway.settings.families.keys() | wanted.families.keys()):
            before, after = self._gateway.settings.family(name), wanted.family(name)
            fields = [field for field in FamilySettings.model_fields if getattr(before, field) != getattr(after, field)]
            if not fields:
                continue
            # Loading reads the settings, so they are there first, and gone again where it fails.
            self._store(name, after)
            try:
                if set(fields) - FAMILY_AT_ONCE and name in self._gateway.families:
                    await self._control.load(name, again=True)
            except ProtocolError as error:
                self._store(name, before)
                failed.append(error)
            except Exception:
                self._store(name, before)
                logger.exception("family %s: a fault that nobody foresaw", name)
                failed.append(ProtocolError(500, f"failed to load {name!r}: see the log"))
            else:
                applied += [f"families.{name}.{field}" for field in fields]
        return failed

    def _store(self, family: str, own: FamilySettings) -> None:
        settings = self._gateway.settings
        self._gateway.apply(settings.model_copy(update={"families": {**settings.families, family: own}}))
