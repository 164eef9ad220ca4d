"""Who may change what is served: where admin routes are open, and to whom where there are no API keys.

With keys, the gate has seen one with the role `admin`. Without, callers have to be on this machine. They must not come
by a proxy, which speaks for others, nor be a page that somebody on this machine has open in a browser, which sends such
requests for any page: with `origin`, and for a page whose name is made to mean this machine with that name as `host`.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Iterable
from typing import TypeAlias

from service.access import FORBIDDEN
from service.exchange import Scope
from service.gateway import Gateway
from service.oip.errors import ProtocolError

ADMIN_PATHS = ("/admin/", "/v2/repository/models/")
"""What such paths begin with."""

ON_ADMIN_PORT = "pareto.admin_port"
"""In the scope of a request that came by `admin_port`."""
KEY_NAME = "pareto.key"
"""In the scope of a request with an API key: its name."""

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]

logger = logging.getLogger("pareto.admin")

_FOR_OTHERS = frozenset({b"origin", b"forwarded", b"x-forwarded-for", b"x-real-ip"})
"""Headers of those who send what others want to be sent."""
_HOST = re.compile(r"(?:\[(?P<address>[^\]]*)\]|(?P<name>[^:]*))(?::\d*)?")


def check_admin(
    gateway: Gateway, asked: str, key: str, peer: str | None, headers: Headers, *, on_admin_port: bool = False
) -> None:
    """Raise `ProtocolError` 403 where this caller, at the address `peer`, may not change what is served; log what is
    `asked` by those who may, with the name of their `key`.

    Without keys, `headers` (or the metadata of a call) must not tell of a browser or a proxy. A caller by a Unix socket
    has no address, and is not known to be on this machine.
    """
    if not (gateway.settings.admin or on_admin_port):
        raise ProtocolError(
            FORBIDDEN, "changing what is served is closed: set `admin = true` or `admin_port` to open it to callers"
        )
    if gateway.access.keys is None:
        if peer is None or not is_loopback(peer):
            raise ProtocolError(
                FORBIDDEN,
                "changing what is served is open to callers on the gateway's machine alone: it has no API keys",
            )
        _check_sender(headers)
    logger.info("%s for %s", asked, key or peer)


def check_admin_request(gateway: Gateway, scope: Scope) -> None:
    """As `check_admin`, of an HTTP request."""
    client = scope.get("client")
    peer = client[0] if client else None
    asked = f"{scope['method']} {scope['path'][:120]!r}"
    check_admin(gateway, asked, scope.get(KEY_NAME, ""), peer, scope["headers"], on_admin_port=ON_ADMIN_PORT in scope)


def _check_sender(headers: Headers) -> None:
    for name, value in headers:
        if name in _FOR_OTHERS or (name == b"host" and not _is_address(value)):
            raise ProtocolError(
                FORBIDDEN,
                "changing what is served is closed to proxies, to pages of browsers and to names other than localhost: "
                "the gateway has no API keys",
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address, as far as is known without asking for a name."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _is_address(host: bytes) -> bool:
    """Whether a `host` header has an address or `localhost`, which nobody can have mean something else."""
    found = _HOST.fullmatch(host.decode("latin-1"))
    if found is None:
        return False
    try:
        ipaddress.ip_address(found["name"] or found["address"])
    except ValueError:
        return found["name"] == "localhost"
    return True
