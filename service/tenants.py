"""Tenants as the settings have them: what each may ask for, what holds for its requests, and its metric label."""

from __future__ import annotations

from router.family import EVEN, Share
from router.flows import OTHERS
from router.quotas import Quota
from service.oip.terms import TermDefaults
from service.scoped_settings import DEFAULT_TENANT, TenantSettings
from service.settings import Settings

NO_TENANT = TermDefaults().tenant
"""Whom requests belong to that name no tenant."""
OTHER_TENANT = "other"
"""The label under which tenants without a table of their own are counted together."""


class Tenants:
    """The tenants that the settings name; all others have what `[tenants.default]` says."""

    def __init__(self, settings: Settings) -> None:
        named = dict(settings.tenants)
        self._others = named.pop(DEFAULT_TENANT, TenantSettings())
        self._named = named
        self._labels = {*named, NO_TENANT}

    def of(self, tenant: str) -> TenantSettings:
        """What holds for a tenant."""
        return self._named.get(tenant, self._others)

    def label(self, tenant: str) -> str:
        """The tenant in metrics: its name if the settings have it or where none was given, else `other`."""
        return tenant if tenant in self._labels else OTHER_TENANT

    def is_limited(self, tenant: str) -> bool:
        """Whether a quota may refuse its requests."""
        own = self.of(tenant)
        return own.rate is not None or own.concurrency is not None

    @property
    def quotas(self) -> dict[str, Quota]:
        """The quotas of those with a table."""
        return {name: _quota(own) for name, own in self._named.items()}

    @property
    def quota_of_others(self) -> Quota:
        """The quota of each other one."""
        return _quota(self._others)

    @property
    def shares(self) -> dict[str, Share]:
        """What each with a table may count on, and all others together; who names no tenant is one of its own."""
        named = {name: own.share for name, own in self._named.items()}
        return {NO_TENANT: EVEN, OTHERS: self._others.share, **named}


def _quota(own: TenantSettings) -> Quota:
    return Quota(own.rate, own.burst, own.concurrency)
