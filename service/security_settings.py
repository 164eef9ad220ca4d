"""Settings of who gets in and how: API keys and what needs none.

The descriptions here are the reference that users read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field
from pydantic_settings import NoDecode

from service.scoped_settings import comma_separated

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
