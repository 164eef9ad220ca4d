"""What each tenant may ask for: rows per second in a token bucket with a burst, and unfinished requests at a time.

A bucket holds at most `burst` rows and fills at `rate`. A request takes as many as it has rows; one of more rows than
the bucket holds is taken in when the bucket is full and leaves a debt, so that no request is refused for ever. Source:
the token bucket of RFC 2697, with rows in the place of bytes.

Tenants without a quota of their own have that of `others`, each a bucket of its own as long as there are not too many;
the rest share one. An account that has nothing to remember is forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

MOST_OTHERS = 1024
"""So many tenants without a quota of their own have an account each."""
SWEEP_S = 1.0
"""Accounts with nothing to remember are looked for this often at most."""
UNKNOWN_S = 1.0
"""What a request is taken to last before one of its tenant has ended."""
KEEP = 0.8
"""Share of the old mean that stays when a request ends."""
ROUNDING = 1e-9
"""Relative: who waits exactly as long as was said must not be refused for the last bit of a float."""


@dataclass(frozen=True, slots=True)
class Quota:
    """`rate` is rows per second (`None`: any), `burst` rows that may come at once (`None`: those of a second, but at
    least one), `concurrency` unfinished requests (`None`: any). Raises `ValueError` out of range.
    """

    rate: float | None = None
    burst: float | None = None
    concurrency: int | None = None

    def __post_init__(self) -> None:
        if self.rate is not None and not 0.0 < self.rate < math.inf:
            raise ValueError(f"rate: expected a positive number of rows per second, got {self.rate}")
        if self.burst is not None and not 1.0 <= self.burst < math.inf:
            raise ValueError(f"burst: expected at least 1 row, got {self.burst}")
        if self.concurrency is not None and self.concurrency < 1:
            raise ValueError(f"concurrency: expected at least 1 request, got {self.concurrency}")

    @property
    def capacity(self) -> float:
        """Rows that the bucket holds."""
        return max(1.0, self.rate or 0.0) if self.burst is None else self.burst

    @property
    def unlimited(self) -> bool:
        """Whether nothing is ever refused."""
        return self.rate is None and self.concurrency is None


UNLIMITED = Quota()


class Account:
    """What one tenant, or all that share an account, has used. `unfinished` counts its requests without an outcome."""

    __slots__ = ("_filled_s", "_mean_s", "_tokens", "quota", "unfinished")

    def __init__(self, quota: Quota, now: float) -> None:
        self.quota = quota
        self.unfinished = 0
        self._tokens, self._filled_s = quota.capacity, now
        self._mean_s = UNKNOWN_S

    def wait_s(self, rows: int, now: float) -> float:
        """Seconds until a request of so many rows would be taken in if no other came; 0.0 where it is now.

        For `rate` that is exact. When a request of the tenant will end is not known: it is what its requests took of
        late, shared by those that run.
        """
        quota, wait_s = self.quota, 0.0
        if quota.rate is not None:
            missing = min(float(rows), quota.capacity) - self._filled(now)
            if missing > ROUNDING * quota.capacity:
                wait_s = missing / quota.rate
        if quota.concurrency is not None and self.unfinished >= quota.concurrency:
            wait_s = max(wait_s, self._mean_s / self.unfinished)
        return wait_s

    def take(self, rows: int, now: float) -> None:
        """A request is taken in."""
        self._tokens, self._filled_s = self._filled(now) - rows, max(now, self._filled_s)
        self.unfinished += 1

    def release(self, lasted_s: float) -> None:
        """A request that was taken in has ended, so long after it came."""
        self.unfinished -= 1
        # Never nothing: there is no coming back at once to a tenant that has used up its share.
        self._mean_s = max(KEEP * self._mean_s + (1.0 - KEEP) * lasted_s, 1e-3)

    def change(self, quota: Quota, now: float) -> None:
        """Another quota holds from now on; what was used up stays so, as far as the new one has room for it."""
        tokens = self._filled(now)
        if self.quota.rate is None:
            tokens = quota.capacity
        self.quota, self._tokens, self._filled_s = quota, min(tokens, quota.capacity), max(now, self._filled_s)

    def is_blank(self, now: float) -> bool:
        """Whether a new account would answer alike."""
        return self.unfinished == 0 and self._filled(now) >= self.quota.capacity

    def _filled(self, now: float) -> float:
        if self.quota.rate is None:
            return self.quota.capacity
        return min(self.quota.capacity, self._tokens + self.quota.rate * max(0.0, now - self._filled_s))


class Quotas:
    """The accounts of all tenants. `named` has the quotas of those that are known, `others` that of each other one."""

    __slots__ = ("_accounts", "_known", "_named", "_others", "_shared", "_swept_s")

    def __init__(self, named: Mapping[str, Quota] | None = None, others: Quota = UNLIMITED) -> None:
        self._named = dict(named or {})
        self._others = others
        self._known: dict[str, Account] = {}
        self._accounts: dict[str, Account] = {}
        self._shared: Account | None = None
        self._swept_s = -math.inf

    def account(self, tenant: str, now: float) -> Account | None:
        """The account of a tenant, `None` for one without limits. Who takes from it must release to that very one."""
        quota = self._named.get(tenant)
        if quota is not None:
            if quota.unlimited:
                return None
            account = self._known.get(tenant)
            if account is None:
                account = self._known[tenant] = Account(quota, now)
            return account
        if self._others.unlimited:
            return None
        account = self._accounts.get(tenant)
        if account is not None:
            return account
        if len(self._accounts) >= MOST_OTHERS:
            self._sweep(now)
        if len(self._accounts) < MOST_OTHERS:
            account = self._accounts[tenant] = Account(self._others, now)
            return account
        if self._shared is None:
            self._shared = Account(self._others, now)
        return self._shared

    def change(self, named: Mapping[str, Quota], others: Quota, now: float) -> None:
        """Other quotas hold from now on. Who is no longer named, or is now, begins with nothing used."""
        self._known = {name: own for name, own in self._known.items() if not named.get(name, UNLIMITED).unlimited}
        for name, own in self._known.items():
            own.change(named[name], now)
        strangers = [] if others.unlimited else [*self._accounts.values(), *filter(None, (self._shared,))]
        for own in strangers:
            own.change(others, now)
        if not strangers:
            self._accounts, self._shared = {}, None
        self._named, self._others = dict(named), others

    @property
    def accounts(self) -> int:
        """How many accounts there are; bounded."""
        return len(self._known) + len(self._accounts) + (self._shared is not None)

    def _sweep(self, now: float) -> None:
        if now - self._swept_s >= SWEEP_S:
            self._swept_s = now
            self._accounts = {name: own for name, own in self._accounts.items() if not own.is_blank(now)}
