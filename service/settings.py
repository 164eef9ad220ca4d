"""Every setting of a replica: its type, range, default and meaning.

Those of one family or tenant are in `scoped_settings`, those of who gets in and how in `security_settings`, those of
what it tells of itself and of its answers in `observability_settings`.

Values come from a TOML file, from `PARETO_...` variables and from flags; `service.configuration` reads and merges them.
The descriptions here are the reference that users read.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from router.contract import Slot
from router.family import Share
from router.limits import Limits
from router.policies import policy_named
from router.request import NEVER
from service.device_settings import Devices, slots_of
from service.memory import parse_budget
from service.observability_settings import ObservabilitySettings
from service.scoped_settings import Cores, FamilySettings, Margin, Names, Positive, Stages, Tenants
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


class Settings(ObservabilitySettings, SecuritySettings, BaseSettings):
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
    slots: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Batches that run at a time. Default: one for each of `slot_cores`, else the usable cores "
        "(affinity and cgroup quota respected), divided by `threads_per_slot`.",
    )
    threads_per_slot: int = Field(
        default=1, ge=1, le=256, description="Threads of each running batch. Profiles are kept for each value."
    )
    slot_cores: Cores = Field(
        default=(),
        description="Processor cores that batches run on (a list; `0,1` in a variable): the slots take them in turn, "
        "and everything else of the process keeps to the other cores that it may use, batches below `inline_below_s` "
        "too. Linux only, with `threads_per_slot` of 1. Default: batches and the event loop share all cores.",
    )
    devices: Devices = Field(
        default_factory=dict,
        description="Slots of several kinds (a table for each, see below), in place of `slots`, `threads_per_slot` and "
        "`slot_cores`: each batch goes where it is worth most (docs/devices.md). Default: all slots are alike.",
    )
    policy: str = Field(
        default="casc",
        description="Which variant answers: `casc` (weighs each batch against all that waits and is expected, and asks "
        "a better variant where a quick one was unsure), `fluid` (the same, each row answered once), `slack-fraction` "
        "(the most accurate with which everything queued still fits), `fastest`, `most-accurate`, `fixed:<variant>`, "
        "or a published rule (see docs/policies.md).",
    )
    margin: Margin | None = Field(
        default=None,
        description="Expected seconds are multiplied by this when a batch is planned; larger sheds and downgrades "
        "earlier. Default: learnt, so that nine batches of ten take no longer than planned.",
    )
    stages: Stages = Field(
        default="auto",
        description="Whether variants that are exits of one network are served as its stages, so that a better one "
        "goes on from where a quicker one left off: `on`, `off`, or `auto`: where two loaded variants share stages and "
        "the policy may answer a row more than once.",
    )
    transit_ms: float = Field(
        default=4.0,
        ge=0,
        le=1000,
        description="Answers are planned to be ready this long before their SLO, milliseconds, at most a tenth of it: "
        "what a request spends in the network, in sockets and waiting for the event loop.",
    )
    ahead: float = Field(
        default=0.7,
        ge=0,
        lt=1,
        description="For this last share of the time that a batch is planned to take, 6 ms at most, the next batch of "
        "its slot may be decided and handed over, so that the slot never waits for the event loop. More keeps "
        "slots busier, less lets late arrivals join; 0 decides when a slot is free.",
    )
    reply_margin_ms: float = Field(
        default=2.0,
        ge=0,
        le=1000,
        description="An answer that waits for a better one is sent this much earlier still, milliseconds: it must "
        "cover the coarseness of timers (1 ms).",
    )
    backlog: int = Field(
        default=4096, ge=1, description="Rows that may wait; a request that does not fit is answered 503."
    )
    max_rows: int = Field(default=1024, ge=1, description="Rows in one request; more are answered 400.")
    max_body_bytes: int = Field(
        default=16 * 1024 * 1024,
        ge=1024,
        description="Bytes in one request's body, before and after decompression; more are answered 413.",
    )
    max_json_bytes: int = Field(
        default=2 * 1024 * 1024,
        ge=1024,
        description="Bytes of JSON in one request, raw tensors not counted; more are answered 413. JSON is parsed in "
        "one go that holds up everything else: 2 MiB take up to some 50 ms.",
    )
    max_inflight_bytes: int = Field(
        default=256 * 1024 * 1024,
        ge=1024,
        description="Bytes of all bodies that are being read, decoded or answered; a request over it is answered 503.",
    )
    timeout_s: Positive = Field(
        default=30.0, description="Hard timeout of requests that name none, seconds; later answers are 504."
    )
    default_priority: int = Field(
        default=5, ge=1, le=10, description="Priority of requests that name none or 0; 1 goes first, 10 last."
    )
    tenants: Tenants = Field(
        default_factory=dict,
        description="Tenants with a metric label of their own (a list, `a,b` in a variable, or a table for each, see "
        "below); the others share the label `other`.",
    )
    fair_shares: bool = Field(
        default=True,
        description="Whether, where the machine is crowded, requests of families and tenants that ask for more than "
        "their fair share of it are refused first.",
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
    switch_interval_s: float = Field(
        default=0.0001,
        gt=0,
        le=1,
        description="How long a Python thread may keep the interpreter while another one wants it, seconds. A batch "
        "whose model has run waits for it that long at most; lower, the threads change so often that it costs more.",
    )
    isolation: Literal["threads", "processes"] = Field(
        default="threads",
        description="Where batches run: in `threads` of the serving process, or each slot in one of its `processes`, "
        "which share the models' memory: then a model that crashes or hangs costs no more than its batch "
        "(docs/isolation.md). Linux only, and without a `memory_budget`.",
    )
    hang_s: Positive = Field(
        default=1.0,
        description="In `processes`, a batch that runs for so long, seconds, and 20 times as long as planned, hangs: "
        "its process is killed.",
    )
    inline_below_s: float = Field(
        default=0.0003,
        ge=0,
        le=0.1,
        description="Batches planned shorter than this run on the event loop, seconds: handing them to a thread would "
        "cost more. 0 hands over all, and so do `processes`.",
    )
    memory_budget: Annotated[str, AfterValidator(parse_budget)] | None = Field(
        default=None,
        description="Resident memory of the serving process: bytes with a unit (`512MiB`) or a share of the "
        "container's limit (`60%`). Variants are loaded and unloaded by what they are worth; families that nobody asks "
        "for are loaded at their first request. Default: everything is loaded at the start.",
    )
    pinned: Names = Field(
        default=(), description="Families whose smallest variant stays in memory under a `memory_budget`."
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

    @field_validator("policy")
    @classmethod
    def _policy_exists(cls, name: str) -> str:
        policy_named(name)
        return name

    @model_validator(mode="after")
    def _a_request_fits(self) -> Self:
        if self.max_rows > self.backlog:
            raise ValueError(f"max_rows: {self.max_rows} rows could never wait in a backlog of {self.backlog}")
        if self.slot_cores and self.threads_per_slot > 1:
            raise ValueError("slot_cores: a slot on one core runs one thread; threads_per_slot must be 1")
        if self.max_body_bytes > self.max_inflight_bytes:
            raise ValueError(f"max_body_bytes: {self.max_body_bytes} is more than max_inflight_bytes allows")
        return self

    @model_validator(mode="after")
    def _devices_have_all_slots(self) -> Self:
        if self.devices:
            if Slot(0).device in self.devices:
                raise ValueError(f"devices: {Slot(0).device} is what answers do not name; call it otherwise")
            if also := sorted({"slots", "threads_per_slot", "slot_cores"} & self.model_fields_set):
                raise ValueError(f"devices: they say how many slots there are and of what; leave {also[0]} out")
            if self.isolation == "processes":
                raise ValueError("devices: executors in `processes` are all alike; leave one of the two out")
            if self.memory_budget is not None:
                raise ValueError("devices: their models keep no memory_budget yet; leave one of the two out")
        return self

    @model_validator(mode="after")
    def _a_key_has_a_certificate(self) -> Self:
        if self.ssl_keyfile is not None and self.ssl_certfile is None:
            raise ValueError("ssl_keyfile: there is no ssl_certfile that it belongs to")
        return self

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        for name, others in (("admin_port", ("port",)), ("grpc_port", ("port", "admin_port"))):
            number = getattr(self, name)
            for other in others:
                if number is not None and number == getattr(self, other):
                    raise ValueError(f"{name}: {number} is `{other}` already; choose another one")
        return self

    @model_validator(mode="after")
    def _processes_are_to_be_had(self) -> Self:
        if self.isolation == "processes":
            if not hasattr(os, "memfd_create") or not hasattr(os, "pidfd_open"):
                raise ValueError("isolation: `processes` need Linux; `threads` run anywhere")
            if self.memory_budget is not None:
                raise ValueError("isolation: `processes` keep no memory_budget yet; leave one of the two out")
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

    @property
    def places(self) -> tuple[Slot, ...]:
        """The slots as the router has them; the first one's device is the one of the most threads."""
        return slots_of(self.devices) or tuple([Slot(index) for index in range(self.slot_count)])

    @property
    def widths(self) -> dict[str, int]:
        """Threads of a batch by device, the first slot's first; `cpu` where no devices are set."""
        if not self.devices:
            return {"cpu": self.threads_per_slot}
        return {slot.device: slot.width for slot in self.places}

    @property
    def threads(self) -> int:
        """Threads of a batch of the first slot."""
        return next(iter(self.widths.values()))

    @property
    def slot_count(self) -> int:
        """Batches that run at a time on this machine."""
        if self.devices:
            return sum(device.slots for device in self.devices.values())
        # Here, because it loads onnxruntime, which reading settings does not need.
        from variants.fingerprint import available_cores  # noqa: PLC0415 - see above

        return self.slots or len(self.slot_cores) or max(1, int(available_cores()) // self.threads_per_slot)

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
