"""Whether a gateway of this kind answers at an address already: asked for its name, as any client may."""

from __future__ import annotations

import http.client
import json

from service import SERVER_NAME
from service.supervision import reachable_host

TIMEOUT_S = 2.0
_LIMIT_BYTES = 4096


def gateway_at(host: str, port: int) -> str | None:
    """Return name and version of the gateway that answers there; None where nothing does, or something else.

    A gateway that is busy for longer than `TIMEOUT_S` is not recognised.
    """
    connection = http.client.HTTPConnection(reachable_host(host), port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/v2")
        told = json.loads(connection.getresponse().read(_LIMIT_BYTES))
        return f"{SERVER_NAME} {told['version']}" if told["name"] == SERVER_NAME else None
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None
    finally:
        connection.close()
