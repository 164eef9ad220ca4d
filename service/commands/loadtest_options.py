"""The options of `pareto loadtest` that no other command has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

PROFILES = ("steady", "smoke", "search", "soak", "spike")
_LOADED, _MEASURED = ("steady", "search", "soak", "spike"), ("steady", "soak", "spike")
USED_BY: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("rate", "process", "cv2", "peak_ratio", "period", "duration", "tenant", "attainment"), _LOADED),
    **dict.fromkeys(("trace", "trace_rate"), _LOADED),
    **dict.fromkeys(("effective_accuracy", "failed"), _MEASURED),
    "p99_ms": ("steady", "soak"),
    **dict.fromkeys(("precision", "repeats", "enough"), ("search",)),
    **dict.fromkeys(("drift", "growth"), ("soak",)),
    **dict.fromkeys(("burst", "burst_duration", "recovery"), ("spike",)),
}
"""Parameters that only some profiles look at."""
GATEWAY, THRESHOLDS, GENERATOR, RESULTS = "The gateway and its rows", "Thresholds", "The generator", "Results"
OF_SEARCH, OF_SOAK, OF_SPIKE = "Profile search", "Profile soak", "Profile spike"

Url = Annotated[
    str | None,
    typer.Argument(
        metavar="URL",
        help="Where the gateway is; by HTTP where that names no protocol.",
        show_default="this machine, setting `port`",
    ),
]
Profile = Annotated[str, typer.Option(metavar="NAME", help=f"What to find out: {', '.join(PROFILES)}.")]
Duration = Annotated[
    float | None,
    typer.Option(metavar="S", help="Seconds of arrivals.", show_default="30; of a trial of search 10; of soak 600"),
]
Tenants = Annotated[
    list[str] | None,
    typer.Option("--tenant", metavar="NAME[:WEIGHT]", help="Whose requests are; repeat it.", show_default=False),
]
Seed = Annotated[int, typer.Option(metavar="N", help="Of arrivals, SLOs, rows and tenants.")]

Families = Annotated[
    list[str] | None,
    typer.Option(
        "--family",
        metavar="NAME[:WEIGHT]",
        help="A family to ask; repeat it. Default: all that are served.",
        show_default=False,
        rich_help_panel=GATEWAY,
    ),
]
Variant = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Pin this variant of the one family.", show_default=False, rich_help_panel=GATEWAY
    ),
]
RowFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--rows",
        metavar="[FAMILY=]FILE",
        help="Rows to send, .npz or .csv. Default: those of --models, else those that the gateway shows.",
        show_default=False,
        rich_help_panel=GATEWAY,
    ),
]
Headers = Annotated[
    list[str] | None,
    typer.Option(
        "--header",
        metavar="'NAME: VALUE'|@FILE",
        help="Goes with every request, e.g. a key; repeat it. @FILE holds one a line.",
        show_default=False,
        rich_help_panel=GATEWAY,
    ),
]
Insecure = Annotated[bool, typer.Option("--insecure", help="Believe any TLS certificate.", rich_help_panel=GATEWAY)]

EffectiveAccuracy = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE", help="Share to answer correctly in time.", show_default=False, rich_help_panel=THRESHOLDS
    ),
]
P99 = Annotated[
    float | None,
    typer.Option(
        "--p99-ms", metavar="MS", help="99th percentile of latency.", show_default=False, rich_help_panel=THRESHOLDS
    ),
]
Failed = Annotated[
    float, typer.Option(metavar="SHARE", help="Share that may get no answer at all.", rich_help_panel=THRESHOLDS)
]

Precision = Annotated[
    float, typer.Option(metavar="SHARE", help="How closely to find the rate.", rich_help_panel=OF_SEARCH)
]
Repeats = Annotated[
    int, typer.Option(metavar="N", help="Trials of a rate near the edge at most.", rich_help_panel=OF_SEARCH)
]
Enough = Annotated[
    float | None,
    typer.Option(metavar="R", help="The rate to reach.", show_default="any", rich_help_panel=OF_SEARCH),
]
Drift = Annotated[
    float, typer.Option(metavar="SHARE", help="How much latency may rise to the end.", rich_help_panel=OF_SOAK)
]
Growth = Annotated[
    float, typer.Option(metavar="SHARE", help="How much the gateway's memory may grow.", rich_help_panel=OF_SOAK)
]
Burst = Annotated[float, typer.Option(metavar="X", help="The burst, times the rate.", rich_help_panel=OF_SPIKE)]
BurstDuration = Annotated[float, typer.Option(metavar="S", help="How long it lasts.", rich_help_panel=OF_SPIKE)]
Recovery = Annotated[float, typer.Option(metavar="S", help="How long recovery may take.", rich_help_panel=OF_SPIKE)]

Workers = Annotated[
    int,
    typer.Option(
        metavar="N", help="Generator processes, as workers of locust; 0 is one without.", rich_help_panel=GENERATOR
    ),
]
Listen = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Wait there for the workers, on any machine, instead of starting them.",
        show_default=False,
        rich_help_panel=GENERATOR,
    ),
]
Web = Annotated[
    str | None,
    typer.Option(
        metavar="[HOST:]PORT",
        help="Locust's own page, which starts and stops; until Ctrl-C.",
        show_default=False,
        rich_help_panel=GENERATOR,
    ),
]
Out = Annotated[Path, typer.Option(metavar="NAME", help="Writes NAME.json and NAME.html.", rich_help_panel=RESULTS)]
Compare = Annotated[
    tuple[Path, Path] | None,
    typer.Option(
        metavar="A.json B.json",
        help="Send nothing: hold two results against each other, in NAME.html.",
        show_default=False,
        rich_help_panel=RESULTS,
    ),
]
