"""Where traces go: a URL, checked when the settings are read."""

from __future__ import annotations

from importlib.util import find_spec
from urllib.parse import urlsplit


def collector(endpoint: str) -> str:
    """The endpoint where it can be used. Raises `ValueError` with one line where it cannot."""
    try:
        at = urlsplit(endpoint)
        _ = at.port
    except ValueError as error:
        raise ValueError(f"expected a URL such as http://localhost:4318, got {endpoint[:80]!r} ({error})") from None
    if at.scheme not in ("http", "https") or not at.hostname:
        raise ValueError(f"expected a URL such as http://localhost:4318, got {endpoint[:80]!r}")
    if at.username or at.password:
        raise ValueError("expected a URL without a password: put credentials into OTEL_EXPORTER_OTLP_HEADERS")
    if not _is_there("opentelemetry.exporter.otlp.proto.http"):
        raise ValueError(
            "needs the package opentelemetry-exporter-otlp-proto-http: in a checkout pip install -e '.[traces]'"
        )
    return endpoint


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
