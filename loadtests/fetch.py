"""One plain HTTP exchange: for checks before and after a run, never for what is measured."""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import NamedTuple


class Answer(NamedTuple):
    """Any answer, of whatever status. Names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def trusting(*, insecure: bool = False) -> ssl.SSLContext:
    """Which certificates are believed: the system's and those in the file of `SSL_CERT_FILE`, or any at all."""
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def fetch(
    url: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 10.0,
    *,
    insecure: bool = False,
) -> Answer:
    """GET, or POST where there is a body; `insecure` believes any certificate.

    Raises `OSError` where nobody answers, or not in HTTP, and `ValueError` for a bad address.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url[:80]!r} is not an http address")
    request = urllib.request.Request(url, body, dict(headers or {}))  # noqa: S310 - the scheme is checked above
    context = trusting(insecure=insecure) if url.startswith("https://") else None
    try:
        with urllib.request.urlopen(request, timeout=timeout_s, context=context) as response:  # noqa: S310 - as above
            return Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read())
    except urllib.error.URLError as error:
        raise error.reason if isinstance(error.reason, OSError) else OSError(str(error.reason)) from None
    except http.client.HTTPException as error:
        raise OSError(f"{url} does not speak HTTP: {error!r}") from None
