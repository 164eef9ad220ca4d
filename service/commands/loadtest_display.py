"""What `pareto loadtest` shows while it sends and when it has ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from service.commands.tables import output

if TYPE_CHECKING:
    from rich.table import Table

    from loadtests.harness.cargo import Plan
    from loadtests.harness.measured import Run
    from loadtests.harness.session import Ended
    from loadtests.harness.uncertainty import Interval

LINE_EVERY_S = 10.0
"""How often a line is written where the error output is no terminal, and lines cannot be written over."""
_OUTCOMES = {"passed": "bold green", "failed": "bold red", "invalid": "bold white on red", "interrupted": "bold yellow"}
_MARKS = {True: ("ok", "green"), False: ("missed", "bold red"), None: ("not judged", "yellow")}


class Progress:
    """One line on the error output that says how it goes."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._label = ""
        self._requests = 0
        self._span_s = 0.0
        self._before: Mapping[str, Any] = {}
        self._looked_s = self._written_s = 0.0

    def begin(self, label: str, plan: Plan) -> None:
        """A plan is about to be sent."""
        self._label, self._requests, self._span_s = label, len(plan), plan.workload.duration_s
        self._before, self._looked_s = {}, time.monotonic()
        self._written_s = self._looked_s
        if self._live:
            self._write(f"{label}: {plan.workload.description}")

    def counts(self, counts: Mapping[str, Any]) -> None:
        """How far it is."""
        now_s = time.monotonic()
        line = progress_line(self._label, self._requests, counts, self._before, now_s - self._looked_s)
        self._before, self._looked_s = counts, now_s
        if self._live:
            self._write(line)
        elif now_s - self._written_s >= LINE_EVERY_S:
            self._written_s = now_s
            typer.echo(line, err=True)

    def end(self, run: Run | None) -> None:
        """It has been sent."""
        if self._live:
            self._write("")

    def say(self, line: str) -> None:
        """Something worth knowing, on a line that stays."""
        if self._live:
            self._write("")
        typer.echo(line, err=True)

    @staticmethod
    def _write(line: str) -> None:
        from shutil import get_terminal_size

        sys.stderr.write("\r\x1b[2K" + line[: get_terminal_size().columns - 1])
        sys.stderr.flush()


def progress_line(
    label: str, requests: int, counts: Mapping[str, Any], before: Mapping[str, Any], seconds: float
) -> str:
    """How far a plan is: how much of it, the rate just now, and of all that ended the shares in time and by variant."""
    ended = sum(counts["fates"].values())
    rate = (counts["due"] - before.get("due", 0)) / max(seconds, 1e-3)
    parts = [f"{label} {counts['due'] / max(requests, 1):4.0%}", f"{rate:.0f}/s"]
    if ended:
        parts.append(f"in time {counts['in_time'] / ended:.1%}")
        parts += [f"{fate} {count / ended:.1%}" for fate, count in counts["fates"].items() if fate != "answered"]
        answered = max(1, counts["fates"].get("answered", 0))
        mix = sorted(counts["variants"].items(), key=lambda pair: -pair[1])[:4]
        parts.append(" ".join(f"{name} {count / answered:.0%}" for name, count in mix))
    parts.append(f"lag {counts['lag_s'] * 1e3:.1f} ms")
    return "  ".join(part for part in parts if part)


def print_ended(ended: Ended, runs: Sequence[Run], *, scored: bool) -> None:
    """The scores where they are worth a table, then the verdict."""
    from rich.text import Text

    from loadtests.report import score_table

    console = output()
    if scored and runs:
        last = runs[-1]
        accuracy = last.effective_accuracy
        console.print(
            score_table(
                last.score.description,
                last.score,
                effective=_interval(accuracy) if accuracy is not None else "",
                attainment=_interval(last.attainment),
            )
        )
        if len(last.families) > 1 or last.tenants:
            console.print(_parts_table(last))
        if rests := last.accuracy_rests_on:
            console.print(f"effective accuracy rests on {rests}", highlight=False, soft_wrap=True)
        if reasons := last.reasons():
            console.print("no answer: " + ", ".join(f"{why} {count:,}" for why, count in reasons.items()), markup=False)
    verdict = ended.verdict
    for check in verdict.checks:
        mark, style = _MARKS[check.passed]
        console.print(
            Text(f"{mark:<11}", style=style),
            Text(f"{check.what}: {check.found}, wanted {check.wanted}"),
            soft_wrap=True,
        )
    for line in ended.lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(Text(f" {verdict.outcome.upper()} ", style=_OUTCOMES[verdict.outcome]), end="")
    console.print("; ".join(verdict.faults), highlight=False, markup=False, soft_wrap=True)
    if verdict.faults:
        console.print(
            "This is no measurement of the gateway: lower the rate, give the generator a core of its own, "
            "or share the load with --workers.",
            soft_wrap=True,
        )


def _interval(found: Interval) -> str:
    from loadtests.harness.verdict import percent

    return f"(95 %: {percent(found.low)} to {percent(found.high)})"


def _parts_table(run: Run) -> Table:
    """Scores by family and by tenant."""
    from rich.markup import escape
    from rich.table import Table

    from loadtests.harness.verdict import percent
    from loadtests.report import milliseconds

    table = Table(title="by family and tenant", title_justify="left")
    table.add_column("who")
    for column in ("requests", "in time", "correct in time", "p50", "p99"):
        table.add_column(column, justify="right")
    named = [*run.families.items(), *((f"tenant {name}", one) for name, one in run.tenants.items())]
    for name, one in named:
        table.add_row(
            escape(name),
            f"{one.arrivals:,}",
            percent(one.attainment),
            percent(one.effective_accuracy),
            milliseconds(one.p50_s),
            milliseconds(one.p99_s),
        )
    return table
