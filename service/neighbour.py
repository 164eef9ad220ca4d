"""Whether a gateway of this kind answers at an address already: asked for its name, as any client may."""

from __future__ import annotations

import http.client
import json

from service import SERVER_NAME
from service.access import CHALLENGE
from service.addresses import connection

TIMEOUT_S = 2.0
_LIMIT_BYTES = 4096


def gateway_at(host: str, port: int, *, tls: bool = False) -> str | None:
    """Return name and version of the gateway that answers there; None where nothing does, or something else.

    One with API keys tells its name alone. A gateway that is busy for longer than `TIMEOUT_S` is not recognised.
    """
    asked = connection(host, port, TIMEOUT_S, tls=tls)
    try:
        asked.request("GET", "/v2")
        answer = asked.getresponse()
        if answer.headers["www-authenticate"] == CHALLENGE.decode():
            return SERVER_NAME
        told = json.loads(answer.read(_LIMIT_BYTES))
        return f"{SERVER_NAME} {told['version']}" if told["name"] == SERVER_NAME else None
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None
    finally:
        asked.close()
