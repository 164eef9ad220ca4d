"""Settings of what a replica tells of itself and of its answers: quality, logs, traces, its page, and Prometheus.

The descriptions here are the reference that users read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator

from service.collector import collector
from service.prometheus_settings import HttpUrl, LabelMatchers
from service.scoped_settings import Positive


class ObservabilitySettings(BaseModel):
    """What of a replica's settings lets others see how it fares."""

    audit_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of the requests, drawn by their ids, whose first row the best loaded variant answers again "
        "in spare time, to compare (docs/quality.md).",
    )
    quality_window_s: Positive = Field(
        default=3600.0, description="How fast agreement and accuracy forget: the time constant of their decay, seconds."
    )
    drift_margin: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="A variant drifts where the interval of its agreement is off by more than this from what was "
        "measured when it was built.",
    )
    drift_s: float = Field(default=300.0, ge=0, description="And has been so for this long, seconds.")
    correct_quality: bool = Field(
        default=False,
        description="Whether a variant that drifts is believed to be worth what it lost less, by everything that "
        "chooses among variants (docs/quality.md). Needs an `audit_share`.",
    )
    feedback_bytes: int = Field(
        default=8 * 1024 * 1024,
        ge=0,
        description="Memory for the last answers, which feedback may judge; 0 remembers none.",
    )
    feedback_s: Positive = Field(default=3600.0, description="How long an answer can be judged, seconds.")
    traces_endpoint: Annotated[str, AfterValidator(collector)] | None = Field(
        default=None,
        description="Where OpenTelemetry traces go over OTLP/HTTP, a URL such as `http://localhost:4318` "
        "(docs/traces.md). Default: requests are not traced.",
    )
    traces_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of the requests without a `traceparent` that are traced, drawn by their ids. Those with one "
        "are traced where it says so.",
    )
    access_log_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of the requests, drawn by their ids, of which a line is logged when they have ended; of "
        "those refused or failed, ten a second are, too. 0 logs none of them (docs/logs.md).",
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="How log lines are written: `text`, or `json`, one object per line (docs/logs.md)."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severity logged."
    )
    page: bool = Field(
        default=True,
        description="Whether the gateway's own page is served at `/`. Everybody who reaches the port may read there "
        "what is answered by whom and why, though not what was asked, and up to 24 labelled test rows of each family, "
        "unless `page_samples` is off.",
    )
    page_samples: bool = Field(
        default=True,
        description="Whether the page offers the first 24 labelled test rows of each family to try. Turn it off where "
        "those are not for everybody who reaches the port.",
    )
    comparison: Path | None = Field(
        default=None,
        description="A file that `pareto demo` writes, shown on the page: what fixed variants would have made of the "
        "traffic.",
    )
    prometheus_url: HttpUrl | None = Field(
        default=None,
        description="A Prometheus server that scrapes the gateway and its fleet, `http://host:9090`: what it knows of "
        "hours makes planning more careful while an error budget burns (docs/prometheus.md). Default: none is asked.",
    )
    prometheus_every_s: float = Field(default=15.0, ge=0.1, le=300, description="It is asked this often, seconds.")
    prometheus_short_s: int = Field(
        default=300,
        ge=2,
        le=86400,
        description="The window that says whether a budget still burns, seconds; at least two scrapes.",
    )
    prometheus_long_s: int = Field(
        default=3600,
        ge=2,
        le=30 * 86400,
        description="The window that says whether it matters, seconds; not shorter than the other one.",
    )
    prometheus_match: LabelMatchers | None = Field(
        default=None,
        description='Label matchers of this fleet\'s series, `namespace="prod",job="pareto-gateway"`, where the server '
        "knows other fleets with families of the same names.",
    )
    prometheus_host: str | None = Field(
        default=None,
        description="This machine's name as node_exporter (`nodename`) and dcgm-exporter (`Hostname`) tell it. "
        "Default: the host name.",
    )

    @model_validator(mode="after")
    def _drift_is_found(self) -> Self:
        if self.correct_quality and not self.audit_share:
            raise ValueError("correct_quality: audits find what is to be corrected; set an audit_share above 0")
        return self

    @model_validator(mode="after")
    def _traces_go_somewhere(self) -> Self:
        if self.traces_share and self.traces_endpoint is None:
            raise ValueError("traces_share: there is no traces_endpoint for traces to go to")
        return self

    @model_validator(mode="after")
    def _windows_ascend(self) -> Self:
        if self.prometheus_short_s > self.prometheus_long_s:
            raise ValueError(f"prometheus_short_s: {self.prometheus_short_s} is longer than prometheus_long_s")
        return self
