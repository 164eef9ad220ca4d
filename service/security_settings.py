"""Settings of who gets in and how: API keys, the admin port, pages of other sites, TLS, connections.

The descriptions here are the reference that users read.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode

from service.scoped_settings import comma_separated

_ORIGIN = re.compile(r"\*|https?://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")


def _origin(text: str) -> str:
    if not _ORIGIN.fullmatch(text):
        expected = "https://app.example.org (scheme, host, perhaps a port, in lower case) or *"
        raise ValueError(f"expected {expected}, got {text[:80]!r}")
    return text


Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], NoDecode, BeforeValidator(comma_separated)]
"""Origins as browsers write them."""
Surfaces = Annotated[tuple[Literal["metrics", "page"], ...], NoDecode, BeforeValidator(comma_separated)]


class SecuritySettings(BaseModel):
    """What of a replica's settings keeps others out."""

    keys_file: Path | None = Field(
        default=None,
        description="A file of API keys, a line for each (docs/security.md). Callers then need one for everything but "
        "health. Default: none is needed, unless `PARETO_API_KEYS` holds some.",
    )
    keyless: Surfaces = Field(
        default=(),
        description="What tells of everybody and needs no key though there are keys: `metrics` (`/metrics`), `page` "
        "(what the page shows, samples too).",
    )
    admin_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="A port on which models may be loaded and unloaded and settings read again, whatever `admin` says "
        "of `port`; it answers everything else, too. Default: none.",
    )
    admin_host: str = Field(default="127.0.0.1", min_length=1, description="The address of `admin_port`.")
    cors_origins: Origins = Field(
        default=(),
        description="Origins whose pages may ask from a browser (a list; `a,b` in a variable): "
        "`https://app.example.org`, or `*` for all. Default: none but the gateway's own page.",
    )
    ssl_certfile: Path | None = Field(
        default=None,
        description="Certificate chain (PEM): with it the gateway speaks HTTPS, on `admin_port` too. `bentoml serve` "
        "takes it as `--ssl-certfile`. Default: HTTP.",
    )
    ssl_keyfile: Path | None = Field(
        default=None,
        description="The certificate's private key (PEM, without a password); `bentoml serve` takes it as "
        "`--ssl-keyfile`. Default: it is in `ssl_certfile`.",
    )
    max_connections: int = Field(
        default=4096, ge=1, description="Connections at a time on each port; one more is answered 503 and closed."
    )

    @model_validator(mode="after")
    def _a_key_has_a_certificate(self) -> Self:
        if self.ssl_keyfile is not None and self.ssl_certfile is None:
            raise ValueError("ssl_keyfile: there is no ssl_certfile that it belongs to")
        return self
