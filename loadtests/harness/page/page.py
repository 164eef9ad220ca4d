"""The report of one load test as HTML, made from its record alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment

from loadtests.harness.page.pictures import run_pictures
from loadtests.harness.page.profile_pictures import profile_pictures
from loadtests.harness.verdict import percent
from loadtests.workload import SloMix
from variants.report.style import milliseconds, page_environment

TEMPLATE = "report.html.jinja"
Record = Mapping[str, Any]


def render(record: Record) -> str:
    """Return the page."""
    shown = shown_run(record)
    scored = record["profile"] != "smoke"
    return (
        templates()
        .get_template(TEMPLATE)
        .render(
            record=record,
            shown=shown,
            title=title_of(record),
            when=datetime.fromisoformat(record["created"]).strftime("%Y-%m-%d %H:%M UTC"),
            tiles=tiles(shown) if scored else [],
            own=profile_pictures(record),
            pictures=run_pictures(shown, record["details"]) if scored else {},
            parts=_parts(shown),
            facts=facts(record, shown),
        )
    )


def templates() -> Environment:
    """The engine for the pages of load tests."""
    environment = page_environment(Path(__file__).parent)
    environment.filters["kept"] = kept_together
    return environment


def kept_together(text: str) -> str:
    """Numbers stay on the line of their units."""
    return re.sub(r"(?<=\d) (?=%|ms\b|s\b|µs\b|points\b)", "\u00a0", text)


def shown_run(record: Record) -> Record:
    """The run that the pictures are of: the last valid one, of a search at the rate that was found.

    Where none of them is valid, the last.
    """
    rate = record["details"].get("rate")
    runs: list[Record] = [run for run in record["runs"] if rate is None or run["rate_asked"] == rate] or record["runs"]
    return next((run for run in reversed(runs) if run["score"]["valid"]), runs[-1])


def title_of(record: Record) -> str:
    """Profile and families, in a few words."""
    names = [family["name"] for family in record["families"]]
    of = ", ".join(names) if len(names) <= 3 else f"{len(names)} families"
    return f"Load test ({record['profile']}) of {of}"


def tiles(run: Record) -> list[tuple[str, str, str]]:
    """The numbers to see first: name, value, and what belongs to it."""
    score, interval = run["score"], run["attainment_interval"]
    accuracy, fates = score["effective_accuracy"], score["fates"]
    refused = fates["refused"] + fates["expired"]
    late = fates["answered"] - score["attainment"]
    sure = run.get("effective_accuracy_interval")
    return [
        ("in time", percent(score["attainment"]), f"95 %: {percent(interval[0])} to {percent(interval[1])}"),
        (
            "correct in time",
            percent(accuracy) if accuracy is not None else "-",
            f"95 %: {percent(sure[0])} to {percent(sure[1])}" if sure is not None else "rows have no labels",
        ),
        ("median latency", f"{milliseconds(score['p50_s'])} ms", f"99th percentile {milliseconds(score['p99_s'])} ms"),
        ("requests", f"{score['arrivals']:,}", f"{score['rate']:.1f} a second"),
        ("refused", percent(refused), f"answered late {percent(max(0.0, late))}"),
        ("lost", percent(fates["failed"]), "no answer at all"),
        (
            "generator's lag",
            f"{milliseconds(score['lag_p99_s'])} ms",
            f"99th percentile; {score['generator_cpu']:.0%} of a core",
        ),
    ]


def facts(record: Record, run: Record) -> list[tuple[str, str]]:
    """What somebody needs to know who wants to measure it again."""
    generator, gateway = record["generator"], record["gateway"]
    workers = generator["workers"]
    found = [
        ("gateway", " ".join(str(gateway[name]) for name in ("name", "version", "commit") if gateway.get(name))),
        ("address", gateway["url"]),
        *(
            (
                f"family {family['name']}",
                f"{family['rows']}; SLO {SloMix.parse(family['slo_mix_ms']).said}; "
                f"{family['share']:.0%} of the requests; variants "
                + ", ".join(family["variants"])
                + (f"; pinned to {family['pinned']}" if family["pinned"] else ""),
            )
            for family in record["families"]
        ),
        ("generator", f"{workers} workers" if workers else "one process"),
        ("its machine", f"{generator['machine']}; {generator['system']}"),
        ("its versions", f"locust {generator['locust']}, Python {generator['python']}, commit {generator['commit']}"),
        ("seed", str(run["seed"])),
    ]
    if repeated := sum(one.get("repeated", 0) for one in run["generators"]):
        found.append(("sent again", f"{repeated:,} requests that a kept connection did not take"))
    if len(run["generators"]) > 1:
        fared = (
            f"{one['requests']:,} requests, lag p99 {milliseconds(one['lag_p99_s'])} ms, "
            f"{one['cpu_share']:.0%} of a core"
            for one in run["generators"]
        )
        found.append(("each worker", "; ".join(fared)))
    return found


def _parts(run: Record) -> list[tuple[str, Record]]:
    slos = [(f"SLO {slo['slo_s'] * 1e3:g} ms", slo) for slo in run["score"]["by_slo"]]
    families = list(run["families"].items()) if len(run["families"]) > 1 else []
    return [*slos, *families, *((f"tenant {name}", one) for name, one in run["tenants"].items())]
