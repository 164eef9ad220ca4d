"""Settings of how batches are planned, and of what bounds requests and those that wait.

The descriptions here are the reference that users read.
"""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, Field, field_validator, model_validator

from router.policies import policy_named
from service.scoped_settings import Margin, Positive, Stages


class PlanningSettings(BaseModel):
    """What of a replica's settings decides which requests are taken, and what answers them when."""

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
    fair_shares: bool = Field(
        default=True,
        description="Whether, where the machine is crowded, requests of families and tenants that ask for more than "
        "their fair share of it are refused first.",
    )

    @field_validator("policy")
    @classmethod
    def _policy_exists(cls, name: str) -> str:
        policy_named(name)
        return name

    @model_validator(mode="after")
    def _a_request_fits(self) -> Self:
        if self.max_rows > self.backlog:
            raise ValueError(f"max_rows: {self.max_rows} rows could never wait in a backlog of {self.backlog}")
        if self.max_body_bytes > self.max_inflight_bytes:
            raise ValueError(f"max_body_bytes: {self.max_body_bytes} is more than max_inflight_bytes allows")
        return self
