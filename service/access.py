"""Who may ask what: API keys, the roles they have, and how a caller shows one. Shared by every way into the gateway.

A caller shows a key as `authorization: Bearer KEY` or `x-api-key: KEY`. What is kept of a key is its SHA-256 digest:
what is shown is digested, found by its digest and compared in constant time, so that neither the number of keys nor how
much of one was right can be told from how long it took. Keys must be long and random (`pareto key` makes such): a
digest without salt keeps nobody from guessing short ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from hmac import compare_digest
from secrets import token_bytes

from service.oip.errors import ProtocolError
from service.oip.headers import TENANT_HEADER

UNAUTHORIZED, FORBIDDEN = 401, 403

CHALLENGE = b'Bearer realm="pareto"'
"""What an HTTP answer of 401 says in `www-authenticate` (RFC 6750)."""

LONGEST_SECRET = 256
"""Longer ones are wrong unseen: what a wrong key costs is bounded."""

_AUTHORIZATION, _API_KEY = b"authorization", b"x-api-key"
_BEARER = b"bearer "


class Role(StrEnum):
    """What a key is for."""

    INFER = "infer"
    """Ask models, what there is to ask, and judge answers."""
    READ = "read"
    """Read what tells of everybody: metrics, the page with its events and samples."""
    ADMIN = "admin"
    """Change what is served, and everything that the others may."""


EVERY_ROLE = frozenset(Role)


@dataclass(frozen=True, slots=True)
class Key:
    """Who shows it: a name for logs, the roles, and the tenant that its requests are of; an empty one is the caller's
    to name, for a proxy that knows its own callers.
    """

    name: str
    roles: frozenset[Role]
    tenant: str = ""
    digest: bytes = field(default=b"", repr=False)


ANYBODY = Key("", EVERY_ROLE)
"""Everybody, where no keys are configured."""


class Keys:
    """The keys of a replica, by digest. Raises `ValueError` where two are the same."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._by_digest: dict[bytes, Key] = {}
        for key in keys:
            if (other := self._by_digest.setdefault(key.digest, key)) is not key:
                raise ValueError(f"keys {other.name!r} and {key.name!r} have the same secret")
        # What is unknown is compared, too, with something that nothing is equal to.
        self._nobody = Key("", frozenset(), digest=token_bytes(32))

    def __len__(self) -> int:
        return len(self._by_digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Keys) and self._by_digest == other._by_digest

    __hash__ = None  # type: ignore[assignment]  # how Python says that equal ones cannot be hashed

    def find(self, secret: bytes) -> Key | None:
        """The key with this secret."""
        # A dict compares by SipHash under a key of the process's own first, which nobody can steer.
        digest = sha256(secret[:LONGEST_SECRET]).digest()
        key = self._by_digest.get(digest, self._nobody)
        known = compare_digest(key.digest, digest)
        return key if known and len(secret) <= LONGEST_SECRET else None


class Access:
    """Says who a caller is and whether that caller may. Without keys everybody may everything.

    `refusals` counts those turned away by status and by the role that was wanted.
    """

    def __init__(self, keys: Keys | None = None) -> None:
        self.keys = keys
        """Replaced as a whole when they are read again."""
        self.refusals: dict[tuple[int, Role], int] = {}

    def admit(self, secret: bytes | None, need: Role) -> Key:
        """The key with this secret, which has the role that is needed.

        Raises `ProtocolError` 401 for no key and for a wrong one, which are told apart nowhere, and 403 for a key
        without the role.
        """
        keys = self.keys
        if keys is None:
            return ANYBODY
        key = keys.find(secret) if secret is not None else None
        if key is None:
            raise self._refused(
                need, UNAUTHORIZED, "a valid API key is needed: send `authorization: Bearer KEY` or `x-api-key: KEY`"
            )
        if need not in key.roles:
            raise self._refused(need, FORBIDDEN, f"this API key may not do that: it does not have the role {need}")
        return key

    def _refused(self, need: Role, status: int, message: str) -> ProtocolError:
        counted = (status, need)
        self.refusals[counted] = self.refusals.get(counted, 0) + 1
        return ProtocolError(status, message)


def shown_secret(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The secret that headers (or gRPC metadata), named in lower case, show; `None` for none, and for two that differ.

    Other schemes of `authorization` are somebody else's, and no key.
    """
    found: bytes | None = None
    for name, value in headers:
        if name == _AUTHORIZATION:
            if value[:7].lower() != _BEARER:
                continue
            secret = value[7:].strip(b" ")
        elif name == _API_KEY:
            secret = value.strip(b" ")
        else:
            continue
        if found is not None and found != secret:
            return None
        found = secret
    return found or None


def asked_as(key: Key, headers: Sequence[tuple[bytes, bytes]]) -> Sequence[tuple[bytes, bytes]]:
    """Headers (or metadata) of who has shown a key: of the key's tenant, if it has one, whatever they say."""
    if not key.tenant:
        return headers
    return [*(header for header in headers if header[0] != TENANT_HEADER), (TENANT_HEADER, key.tenant.encode())]


def roles_of(words: Sequence[str]) -> frozenset[Role]:
    """The roles of these words; `admin` may everything. Raises `ValueError` for another word."""
    roles = frozenset(Role(word) for word in words)
    return EVERY_ROLE if Role.ADMIN in roles else roles
