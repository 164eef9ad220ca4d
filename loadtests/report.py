"""Scores for people (rich tables) and for programs (JSON)."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import orjson
from rich.markup import escape
from rich.table import Table

from loadtests.scoring import Score, SloScore


def percent(share: float) -> str:
    """A share as percent with one decimal, a dash where there is none."""
    return "-" if math.isnan(share) else f"{share * 100.0:.1f} %"


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds, a dash where there are none."""
    return "-" if math.isnan(seconds) else f"{seconds * 1e3:.1f} ms"


def score_table(title: str, score: Score, *, effective: str | None = None, attainment: str = "") -> Table:
    """The whole score of one run, and how sure its shares are; None: the standard error over single requests."""
    table = Table(title=escape(title), show_header=False, title_justify="left")
    table.add_column("what", style="bold")
    table.add_column("value")
    error = f"± {score.effective_accuracy_error * 100.0:.1f}" if effective is None else effective
    table.add_row("effective accuracy", f"{percent(score.effective_accuracy)} {error}  correct and on time, of all")
    table.add_row("SLO attainment", f"{percent(score.attainment)} {attainment}  answered on time, of all")
    table.add_row("accuracy", f"{percent(score.accuracy)}  of the answered")
    for slo in score.by_slo:
        table.add_row(
            f"  SLO {slo.slo_s * 1e3:g} ms",
            f"effective {percent(slo.effective_accuracy)}, attainment {percent(slo.attainment)}, "
            f"p50 {milliseconds(slo.p50_s)}, p99 {milliseconds(slo.p99_s)}  of {slo.arrivals}",
        )
    table.add_row(
        "latency from intended start",
        f"p50 {milliseconds(score.p50_s)}, p99 {milliseconds(score.p99_s)}, p99.9 {milliseconds(score.p999_s)}",
    )
    if not math.isnan(score.overhead_p50_s):
        table.add_row(
            "beyond the server's time", f"p50 {score.overhead_p50_s * 1e3:.2f} ms  network, HTTP, dispatch lag"
        )
    fates = ", ".join(f"{fate.replace('_', ' ')} {percent(share)}" for fate, share in score.fates.items() if share)
    table.add_row("requests", f"{score.arrivals} at {score.rate:.1f}/s: {fates}")
    by_variant = sorted(score.answers.items(), key=lambda answer: -answer[1])
    table.add_row(
        "answered by", escape(", ".join(f"{variant} {percent(share)}" for variant, share in by_variant)) or "-"
    )
    table.add_row(
        "generator",
        f"dispatch lag p50 {score.lag_p50_s * 1e3:.2f} ms, p99 {score.lag_p99_s * 1e3:.2f} ms, "
        f"{score.generator_cpu:.0%} of a core, at most {score.most_in_flight} open",
    )
    return table


def score_json(score: Score) -> dict[str, Any]:
    """The score as JSON values; undefined numbers become null."""
    values: dict[str, Any] = orjson.loads(orjson.dumps(dataclasses.asdict(score)))
    return {**values, "valid": score.valid}


def read_score(path: Path) -> Score:
    """A score that was written as JSON. Raises `OSError`, and `ValueError` where the file holds something else."""
    try:
        values = _with_nan(orjson.loads(path.read_bytes()))
        del values["valid"]
        values["by_slo"] = tuple(SloScore(**_with_nan(slo)) for slo in values["by_slo"])
        values["faults"] = tuple(values["faults"])
        return Score(**values)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: is not a score: {error}") from error


def _with_nan(values: dict[str, Any]) -> dict[str, Any]:
    return {name: math.nan if value is None else value for name, value in values.items()}


def write_json(path: Path, values: Any) -> None:
    """Write indented JSON; folders on the way are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
