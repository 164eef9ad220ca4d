"""Every setting of a replica: its type, range, default and meaning.

Those of one family or tenant are in `scoped_settings`, those of what it takes of its machine in `machine_settings`,
those of what is taken and answered when in `planning_settings`, those of who gets in and how in `security_settings`,
those of what it tells of itself and of its answers in `observability_settings`.

Values come from a TOML file, from `PARETO_...` variables and from flags; `service.configuration` reads and merges them.
The descriptions here are the reference that users read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from router.family import Share
from router.limits import Limits
from router.request import NEVER
from service.machine_settings import MachineSettings
from service.observability_settings import ObservabilitySettings
from service.planning_settings import PlanningSettings
from service.scoped_settings import FamilySettings, Stages, Tenants
from service.security_settings import SecuritySettings

PREFIX = "PARETO_"
"""Of every variable that names a setting; `__` goes one level down."""

MOST_TO_END_S = 25.0
"""BentoML's arbiter kills its worker 30 s after SIGTERM."""

NO_FILE = ""
"""As the value of `PARETO_CONFIG`: read no settings file, not even `pareto.toml` in the working directory."""


PATHS = ("models", "comparison", "keys_file", "ssl_certfile", "ssl_keyfile")
"""Settings that are paths; relative ones start where the command was given."""

_LISTS = ("slot_cores", "pinned", "keyless", "cors_origins")


class Settings(MachineSettings, PlanningSettings, ObservabilitySettings, SecuritySettings, BaseSettings):
    """The settings of one replica, immutable. Constructing it reads no file and no variable: see
    `service.configuration.load_settings`.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter="__")

    models: Path = Field(
        default=Path("models"), description="The model repository; relative paths start in the working directory."
    )
    host: str = Field(
        default="127.0.0.1", min_length=1, description="Address to listen on; `0.0.0.0` opens it to other machines."
    )
    port: int = Field(default=3000, ge=1, le=65535, description="Port to listen on.")
    grpc_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Port for gRPC on the same address (docs/grpc.md). Default: there is none.",
    )
    grpc_reflection: bool = Field(
        default=False,
        description="Whether the gRPC port tells tools such as grpcurl which methods and messages there are.",
    )
    tenants: Tenants = Field(
        default_factory=dict,
        description="Tenants with a metric label of their own (a list, `a,b` in a variable, or a table for each, see "
        "below); the others share the label `other`.",
    )
    lame_duck_s: float = Field(
        default=0.0,
        ge=0,
        le=MOST_TO_END_S,
        description="After SIGTERM the replica is not ready but goes on taking requests for so long, seconds, so that "
        "load balancers see it and send it no more (docs/fleet.md). Then it drains.",
    )
    drain_s: float = Field(
        default=10.0,
        ge=0,
        le=MOST_TO_END_S,
        description="How long accepted requests may still take after SIGTERM and `lame_duck_s`, seconds.",
    )
    keep_alive_s: int = Field(
        default=75,
        ge=1,
        le=3600,
        description="A connection on which nobody asks for so long is closed, seconds; longer than the load balancer "
        "keeps one, else it may send a request just then. `bentoml serve` takes it as `--timeout-keep-alive`.",
    )
    admin: bool = Field(
        default=False,
        description="Whether callers may load and unload models (`/v2/repository/models/...`) and have the settings "
        "read again (`/admin/reload`) at `port`. Without API keys only callers on the gateway's own machine may "
        "(docs/security.md).",
    )
    families: dict[str, FamilySettings] = Field(default_factory=dict, description="Settings by family name.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments alone: `load_settings` merges the other sources itself, so that it can name them in errors."""
        return (init_settings,)

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        for name, others in (("admin_port", ("port",)), ("grpc_port", ("port", "admin_port"))):
            number = getattr(self, name)
            for other in others:
                if number is not None and number == getattr(self, other):
                    raise ValueError(f"{name}: {number} is `{other}` already; choose another one")
        return self

    @model_validator(mode="after")
    def _ends_by_itself(self) -> Self:
        if self.lame_duck_s + self.drain_s > MOST_TO_END_S:
            both = f"{self.lame_duck_s:g} s and drain_s, {self.drain_s:g} s"
            raise ValueError(f"lame_duck_s: {both}, are more than {MOST_TO_END_S:g} s: then the replica is killed")
        return self

    @model_validator(mode="after")
    def _guarantees_can_be_kept(self) -> Self:
        totals = {
            "families": sum(own.guaranteed_share for own in self.families.values()),
            "tenants": sum(own.guaranteed_share for own in self.tenants.values()),
        }
        for what, total in totals.items():
            if total > 1.0 + 1e-9:
                raise ValueError(f"{what}: guaranteed shares add up to {total:g}, at most 1 is there to be given")
        return self

    @property
    def limits(self) -> Limits:
        """What bounds the scheduler."""
        return Limits(
            backlog_rows=self.backlog,
            reply_margin_s=self.reply_margin_ms / 1e3,
            transit_s=self.transit_ms / 1e3,
            ahead=self.ahead,
            hang_s=self.hang_s if self.isolation == "processes" else NEVER,
        )

    def family(self, name: str) -> FamilySettings:
        """What is set for this family, all defaults where nothing is."""
        return self.families.get(name, _NOTHING_SET)

    def share_of(self, family: str) -> Share:
        """What a family may count on beside the others."""
        own = self.family(family)
        return Share(own.weight, own.guaranteed_share)

    def margin_of(self, family: str) -> float | None:
        """The planning margin of a family, at least 1; None where it is learnt."""
        own = self.family(family).margin
        return self.margin if own is None else own

    def load_of(self, family: str) -> tuple[str, ...] | None:
        """The variants to load of a family, None for those its manifest loads by default."""
        return self.family(family).load

    def stages_of(self, family: str) -> Stages:
        """Whether the chains of a family are served as stages."""
        return self.family(family).stages or self.stages

    def timeout_of(self, family: str) -> float:
        """The hard timeout of a family's requests that name none, seconds."""
        own_ms = self.family(family).timeout_ms
        return self.timeout_s if own_ms is None else own_ms / 1000

    def environment(self) -> dict[str, str]:
        """The variables with which another process, in any folder, loads settings equal to these.

        What nobody has set stays so.
        """
        dumped: dict[str, Any] = self.model_dump(mode="json", exclude_none=True, exclude_unset=True)
        for name in PATHS:
            if (path := getattr(self, name)) is not None:
                dumped[name] = str(path.absolute())
        for name in _LISTS:
            if name in dumped:
                dumped[name] = ",".join(map(str, dumped[name]))
        for name in ("families", "tenants", "devices"):
            if name in dumped:
                dumped[name] = json.dumps(dumped[name])
        return {PREFIX + name.upper(): str(value) for name, value in dumped.items()} | {f"{PREFIX}CONFIG": NO_FILE}


_NOTHING_SET = FamilySettings()
