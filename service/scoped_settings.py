"""Settings of one family and of one tenant, and the types that they share with those of the whole replica.

The descriptions here are the reference that users read.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_settings import NoDecode

from router.family import Share
from router.words import WhenCold, WhenLate


def comma_separated(value: object) -> object:
    """A variable holds a list as `a,b`, as is usual there, or as JSON."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return tuple(json.loads(value))
        except ValueError as error:
            raise ValueError(f"expected `a,b`, or a list as JSON, got {value[:80]!r} ({error})") from None
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _core_numbers(value: object) -> object:
    """Ranges as `0-3`, which other tools take, are no list."""
    cores = comma_separated(value)
    if isinstance(cores, tuple | list) and any(isinstance(core, str) and not core.isdecimal() for core in cores):
        raise ValueError(f"expected a list of processor cores, `0,1` in a variable, got {value!r:.80}")
    return cores


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(comma_separated)]
Cores = Annotated[tuple[Annotated[int, Field(ge=0)], ...], NoDecode, BeforeValidator(_core_numbers)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(gt=0, le=1000)]
GuaranteedShare = Annotated[float, Field(ge=0, le=1)]
Margin = Annotated[float, Field(ge=1, le=10)]
Stages = Literal["auto", "on", "off"]
"""Whether chains are served as stages; see `service.paths.serves_stages`."""


class FamilySettings(BaseModel):
    """What may differ from family to family; an omitted key takes the gateway's or the family's own default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    slo_ms: Positive | None = Field(
        default=None, description="SLO of requests that name none, milliseconds. Default: the one in the manifest."
    )
    timeout_ms: Positive | None = Field(
        default=None, description="Hard timeout of requests that name none, milliseconds. Default: `timeout_s`."
    )
    when_late: WhenLate = Field(
        default=WhenLate.SHED,
        description="What becomes of a request whose SLO can no longer be met: `shed` answers 429 at once, "
        "`serve` answers late with the cheapest variant.",
    )
    slo_target: float = Field(
        default=0.99,
        ge=0.5,
        le=0.99999,
        description="Share of the requests with an SLO that are to be answered in time; the rest is the error budget "
        "that alerts and the outer loop go by (docs/prometheus.md).",
    )
    load: Names | None = Field(
        default=None,
        min_length=1,
        description="Variants to load (a list; `a,b` in a variable). "
        "Default: those on the Pareto frontier that are worth their price.",
    )
    weight: Weight = Field(
        default=1.0,
        description="Weight against the other families: of the fair shares of a crowded machine, and of what a "
        "family's accuracy is worth beside theirs.",
    )
    guaranteed_share: GuaranteedShare = Field(
        default=0.0,
        description="Share of the machine's time that is the family's as soon as it asks for it, whoever else asks for "
        "how much; nobody keeps others from it meanwhile.",
    )
    min_accuracy: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Least measured accuracy of the variants that answer, in [0, 1]; requests may ask for more. "
        "Where no loaded variant reaches it, the best one answers.",
    )
    margin: Margin | None = Field(default=None, description="As `margin`, for this family.")
    stages: Stages | None = Field(default=None, description="As `stages`, for this family.")
    when_cold: WhenCold = Field(
        default=WhenCold.WAIT,
        description="Under a `memory_budget`, what becomes of a request for which nothing is loaded: `wait` loads and "
        "answers it, late if need be; `refuse` answers 503 at once.",
    )


class TenantSettings(BaseModel):
    """What one tenant may ask for and what holds for its requests; an omitted key sets no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: Positive | None = Field(
        default=None, description="Rows per second on average; more are answered 429. Default: any."
    )
    burst: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = Field(
        default=None, description="Rows that may come at once. Default: those of a second of `rate`, at least one."
    )
    concurrency: int | None = Field(
        default=None,
        ge=1,
        description="Requests that may be unfinished at a time; more are answered 429. Default: any.",
    )
    priority: int | None = Field(
        default=None, ge=1, le=10, description="Priority of requests that name none or 0. Default: `default_priority`."
    )
    sticky_s: float = Field(
        default=0.0,
        ge=0,
        le=86400,
        description="For so many seconds after an answer, the tenant's requests (or those of one `x-session-id`) to "
        "that family are answered by the same variant as far as deadlines allow; 0 answers each as is best.",
    )
    weight: Weight = Field(
        default=1.0, description="Weight against the other tenants: of the fair shares of a crowded machine."
    )
    guaranteed_share: GuaranteedShare = Field(
        default=0.0,
        description="Share of the machine's time that is the tenant's as soon as it asks for it, whoever else asks for "
        "how much; nobody keeps others from it meanwhile.",
    )

    @property
    def share(self) -> Share:
        """What it may count on beside the others, for the router."""
        return Share(self.weight, self.guaranteed_share)


def _tenant_tables(value: object) -> object:
    """Names alone, as a list or `a,b` in a variable, are tenants without limits."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            return json.loads(value)
        except ValueError as error:
            raise ValueError(f"expected names or a table as JSON, got {value[:80]!r} ({error})") from None
    names = comma_separated(value)
    if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
        return {name: {} for name in names}
    return names


Tenants = Annotated[dict[str, TenantSettings], NoDecode, BeforeValidator(_tenant_tables)]
DEFAULT_TENANT = "default"
"""The table of all tenants without one of their own."""
