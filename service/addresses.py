"""The way to a gateway on this machine."""

from __future__ import annotations

import http.client
import ssl


def reachable_host(host: str) -> str:
    """The address at which a server on this machine is reached that listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not listened on


def base_url(host: str, port: int, *, tls: bool) -> str:
    """Of that server; without a slash at its end."""
    reachable = reachable_host(host)
    return f"http{'s' if tls else ''}://{f'[{reachable}]' if ':' in reachable else reachable}:{port}"


def connection(host: str, port: int, timeout_s: float, *, tls: bool) -> http.client.HTTPConnection:
    """To that server. Its certificate is for the name that others know it by, so it is not checked."""
    if not tls:
        return http.client.HTTPConnection(reachable_host(host), port, timeout=timeout_s)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(reachable_host(host), port, timeout=timeout_s, context=context)
