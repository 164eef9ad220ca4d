"""What may be said of a Prometheus server in the settings."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

_MATCHERS = re.compile(r'(\s*[a-zA-Z_]\w*\s*(=|!=|=~|!~)\s*"([^"\\\n]|\\.)*"\s*(,|$))*')


def _http_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        found = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        found = False
    if not found or parts.query or parts.fragment or any(sign.isspace() for sign in url):
        # Not what was given: it may hold a password.
        raise ValueError("expected http://host:port or https://host:port, with or without a path")
    return url


def _label_matchers(text: str) -> str:
    if not _MATCHERS.fullmatch(text):
        raise ValueError(f'expected label matchers as in namespace="prod",job="gateway", got {text[:80]!r}')
    return text


HttpUrl = Annotated[str, AfterValidator(_http_url)]
LabelMatchers = Annotated[str, AfterValidator(_label_matchers)]
"""As PromQL has them between braces."""
