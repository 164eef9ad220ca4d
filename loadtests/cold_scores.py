"""What a run of `make bench-cold` came to, simulated or live, as scores and as a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from rich.table import Table

from loadtests.cold_simulated import Simulated
from loadtests.cold_workload import Visits
from loadtests.sender import Sender


class Scores(NamedTuple):
    """What one run came to. Fractions in [0, 1], seconds; `memory` is what was used at most over the budget.

    `filled` is what of the budget was used when the scored part began (0 where that is not known).
    """

    hot: float
    cold_requests: int
    cold_p50_s: float
    cold_p95_s: float
    memory: float
    filled: float
    refused: int
    lost: int
    requests: int


def score_simulated(run: Simulated, visits: Visits, hot: int, begin_s: float, budget_bytes: int) -> Scores:
    """Every request from `begin_s` on that was answered in time or not; the most popular are the `hot` ones."""
    ranks = visits.family
    scored = [record for record in run.records if record.arrival_s >= begin_s]
    met = [record.slo_met for record in scored if ranks[record.request_id] < hot]
    cold_s = [record.total_s for record in scored if record.cold and record.variant]
    refused = sum(not record.variant for record in scored)
    lost = len(visits.family) - len({record.request_id for record in run.records})
    p50_s, p95_s = np.percentile(cold_s or [0.0], [50, 95]).tolist()
    return Scores(
        float(np.mean(met)), len(cold_s), p50_s, p95_s, run.most_bytes / budget_bytes, 0.0, refused, lost, len(scored)
    )


def without_outcome(sender: Sender, visits: Visits) -> list[str]:
    """What is known of each request that got neither an answer nor a refusal, as a line."""
    lines = []
    for index, (arrival_s, rank) in enumerate(zip(visits.arrival_s.tolist(), visits.family.tolist(), strict=True)):
        if not is_told(status_of(sender.seen[index])):
            seen = sender.seen[index]
            said = "its connection was closed or nothing came" if seen is None else seen[1].decode(errors="replace")
            lines.append(f"lost: request {index} at {arrival_s:.3f} s of family {rank}: {said!r}")
    return lines


def status_of(seen: tuple[float, bytes] | None) -> bytes:
    """The HTTP status of an answer, as bytes; empty where there is none."""
    return b"" if seen is None else seen[1].split(b" ", 2)[1]


def is_told(status: bytes) -> bool:
    """Whether the caller has an answer or was refused one."""
    return status in (b"200", b"429", b"503")


def score_live(
    sender: Sender,
    visits: Visits,
    began_s: float,
    slo_s: float,
    memory: float,
    filled: float,
    hot: int,
    begin_s: float,
) -> Scores:
    """The same from the answers as they came; `began_s` is when the run did, on the sender's clock."""
    met: list[bool] = []
    cold_s: list[float] = []
    refused = lost = scored = 0
    for arrival_s, rank, seen in zip(visits.arrival_s.tolist(), visits.family.tolist(), sender.seen, strict=True):
        head = b"" if seen is None else seen[1].partition(b"\r\n\r\n")[0].lower()
        status = status_of(seen)
        lost += not is_told(status)
        if arrival_s < begin_s:
            continue
        scored += 1
        latency_s = 1e9 if seen is None else seen[0] - began_s - arrival_s
        refused += status in (b"429", b"503")
        if rank < hot:
            met.append(status == b"200" and latency_s <= slo_s)
        if status == b"200" and b"\r\nx-cold: true" in head:
            cold_s.append(latency_s)
    p50_s, p95_s = np.percentile(cold_s or [0.0], [50, 95]).tolist()
    return Scores(float(np.mean(met)), len(cold_s), p50_s, p95_s, memory, filled, refused, lost, scored)


LEGEND = (
    "hot in time: requests for the popular half of what there is room for, answered within the SLO (aim: 0.99)",
    "cold: answers that waited for a load; p50, p95: how long, in bare loads (aim: p95 3 at the most)",
    "filled, memory: of the budget, when the scored part began, and at the most (aim: 1.03 at the most); lost: aim 0",
)
"""What the columns say."""


def as_table(found: dict[str, Scores], bare_s: float) -> Table:
    """One row a run; a column that no run has anything for is left out."""
    table = Table(title="hot families, cold answers, memory", caption="\n".join(LEGEND), caption_justify="left")
    shown: dict[str, Callable[[Scores], str]] = {
        "hot in time": lambda one: f"{one.hot:.4f}",
        "cold": lambda one: f"{one.cold_requests}",
        "p50": lambda one: f"{one.cold_p50_s / bare_s:.2f}",
        "p95": lambda one: f"{one.cold_p95_s / bare_s:.2f}",
        "filled": lambda one: f"{one.filled:.3f}" if one.filled else "",
        "memory": lambda one: f"{one.memory:.3f}",
        "refused": lambda one: f"{one.refused}",
        "lost": lambda one: f"{one.lost}",
    }
    columns = {title: cell for title, cell in shown.items() if any(map(cell, found.values()))}
    table.add_column("run", no_wrap=True)
    for title in columns:
        table.add_column(title, justify="right", no_wrap=True)
    for name, scores in found.items():
        table.add_row(name, *(cell(scores) for cell in columns.values()))
    return table
