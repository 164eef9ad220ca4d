"""The routing benchmark for people: tables on the terminal and one in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loadtests.routing_goals import Goal, interval, percent
from loadtests.routing_table import RunTable

COLUMNS = 12
"""Policies of a table by trace; the files have all."""
_MET = {True: "[green]met[/]", False: "[red]not met[/]", None: "not measured"}


def print_report(console: Console, table: RunTable, subject: str, goals: Sequence[Goal], title: str) -> None:
    """Everything, from the suite's means down to the goals."""
    console.print(summary_table(table, subject, title))
    console.print(trace_table(table, "effective_accuracy", "Effective accuracy, percent of all arrivals"))
    console.print(trace_table(table, "attainment", "Attainment, percent of all arrivals"))
    console.print(mix_table(table, subject))
    console.print(goals_table(goals))


def ranked(table: RunTable) -> list[str]:
    """Policies, best mean over the suite first; those without runs on all its traces last."""
    return sorted(table.policies, key=lambda policy: -(table.suite_mean(policy) or 0.0))


def summary_table(table: RunTable, subject: str, title: str) -> Table:
    """One row a policy, means over the suite; differences to the subject are paired by trace and seed."""
    result = Table(title=title, title_justify="left")
    result.add_column("policy")
    columns = ("effective accuracy", f"minus {subject}, points [95 %]", "attainment", "accuracy", "shed", "escalated")
    for column in (*columns, "p50 ms", "p99 ms", "p99.9 ms", "decision µs"):
        result.add_column(column, justify="right")
    for policy in ranked(table):
        difference = table.difference(policy, subject)
        result.add_row(
            f"[bold]{policy}[/]" if policy == subject else policy,
            _percent(table.suite_mean(policy)),
            "" if policy == subject or difference is None else escape(interval(difference)),
            *(_percent(table.suite_mean(policy, name)) for name in ("attainment", "accuracy", "shed", "escalated")),
            *(_ms(table.suite_mean(policy, name)) for name in ("p50_s", "p99_s", "p999_s")),
            _decision(table, policy),
        )
    return result


def trace_table(table: RunTable, measure: str, title: str) -> Table:
    """One row a trace, one column a policy, of which only the first `COLUMNS` are shown; the best of a row is bold."""
    policies = ranked(table)[:COLUMNS]
    result = Table(title=title, title_justify="left")
    result.add_column("trace")
    for policy in policies:
        result.add_column(policy, justify="right", overflow="fold", min_width=5)
    for trace in table.traces:
        values = [table.mean(policy, trace, measure) for policy in policies]
        best = max((value for value in values if value is not None), default=None)
        cells = ["-" if v is None else f"[bold]{v * 100:.1f}[/]" if v == best else f"{v * 100:.1f}" for v in values]
        result.add_row(trace, *cells)
    return result


def mix_table(table: RunTable, subject: str) -> Table:
    """What answered, trace by trace, under the subject."""
    variants = sorted(
        {name for by_seed in table.runs.get(subject, {}).values() for r in by_seed.values() for name in r.answers}
    )
    result = Table(title=f"What answered under {subject}, percent of the answered", title_justify="left")
    result.add_column("trace")
    for variant in (*variants, "escalated"):
        result.add_column(variant, justify="right")
    for trace, by_seed in table.runs.get(subject, {}).items():
        shares = [sum(run.answers.get(name, 0.0) for run in by_seed.values()) / len(by_seed) for name in variants]
        escalated = table.mean(subject, trace, "escalated") or 0.0
        result.add_row(trace, *(f"{share * 100:.0f}" if share else "" for share in shares), f"{escalated * 100:.0f}")
    return result


def goals_table(goals: Sequence[Goal]) -> Table:
    """Each goal with what was measured."""
    result = Table(title="Goals", title_justify="left")
    for column in ("goal", "measured", ""):
        result.add_column(column)
    for goal in goals:
        result.add_row(escape(goal.text), escape(goal.measured), _MET[goal.met])
    return result


def markdown(table: RunTable, subject: str, goals: Sequence[Goal], commits: Sequence[str]) -> str:
    """Policies and goals as two tables for a README, and what was measured."""
    lines = [
        f"| policy | effective accuracy | minus {subject}, points [95 %] | attainment | p99 |",
        "|---|---|---|---|---|",
    ]
    for policy in ranked(table):
        difference = table.difference(policy, subject)
        cells = (
            f"**{policy}**" if policy == subject else policy,
            _percent(table.suite_mean(policy)),
            "" if policy == subject or difference is None else interval(difference),
            _percent(table.suite_mean(policy, "attainment")),
            f"{_ms(table.suite_mean(policy, 'p99_s'))} ms",
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| goal | measured | |", "|---|---|---|"]
    words = {True: "met", False: "**not met**", None: "not measured"}
    lines += [f"| {goal.text} | {goal.measured} | {words[goal.met]} |" for goal in goals]
    changed = " (+: and changes that are not committed)" if any(commit.endswith("+") for commit in commits) else ""
    lines += ["", f"Commit: {', '.join(commits)}{changed}"]
    return "\n".join(lines) + "\n"


def _decision(table: RunTable, policy: str) -> str:
    timed = [
        run.decisions
        for by_seed in table.runs[policy].values()
        for run in by_seed.values()
        if run.decisions is not None
    ]
    if not timed:
        return "-"
    medians = sorted(decisions.median_us for decisions in timed)
    return f"{medians[len(medians) // 2]:.0f} (p99 {max(decisions.p99_us for decisions in timed):.0f})"


def _percent(share: float | None) -> str:
    return "-" if share is None else percent(share)


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.1f}"
