"""What a decision costs: microseconds of each policy against what waits (`make bench-decisions`).

A synthetic family of five variants with evidence, one slot that has just become free, rows of one or three size classes
of one or several families. The same view is decided on again and again, at the same moment, with all that the policy
remembers: what it does only now and then (the forecast is read every 20 ms) is not in the median. Medians of CPU time;
the view of the queue is made by the scheduler and not counted.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from loadtests.report import write_json
from loadtests.synthetic import synthetic
from router.contract import Slot
from router.family import Family, VariantProfile
from router.policies import policy_named
from router.request import Request
from router.scheduler import Scheduler
from router.view import Decision, Policy, View
from variants.fingerprint import machine_fingerprint

POLICIES = ("casc", "fluid", "slack-fraction", "slackfit", "fastest")
SLO_S = 0.2


class State(NamedTuple):
    """What waits: `rows` in all, of so many size classes and families."""

    rows: int
    classes: int = 1
    families: int = 1

    def __str__(self) -> str:
        return f"{self.rows} rows, {self.classes} sizes, {self.families} families"


STATES = (
    State(1),
    State(16),
    State(64),
    State(64, 3),
    State(256),
    State(1024),
    State(1024, 3),
    State(64, 1, 8),
    State(1024, 1, 8),
    State(8, 1, 64),
    State(16, 1, 64),
    State(64, 1, 64),
    State(256, 3, 64),
)


class Tap:
    """A policy that remembers the last view and state it was asked with, for them to be timed again."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.asked: tuple[object, View] | None = None

    def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
        """See `router.view.Policy`."""
        decided = self.policy.decide(state, view, now)
        if view.free_slots:
            self.asked = decided[0], view
        return decided


def families(state: State) -> list[Family]:
    """Copies of the synthetic family with as many size classes, each twice as dear as the one before."""
    one, _ = synthetic()

    def sized(variant: VariantProfile) -> VariantProfile:
        median_s = tuple(tuple(s * 2**c for s in variant.latency.median_s[0]) for c in range(state.classes))
        return replace(variant, latency=replace(variant.latency, median_s=median_s, tail_s=median_s))

    sizes = tuple(2**c for c in range(state.classes))
    variants = tuple(sized(variant) for variant in one.variants)
    return [replace(one, name=f"family-{n}", variants=variants, sizes=sizes) for n in range(state.families)]


def microseconds(policy: str, state: State, repeats: int) -> float:
    """The median of a decision, asked again and again."""
    tap = Tap(policy_named(policy))
    known = families(state)
    scheduler = Scheduler(known, [Slot(0)], tap)
    rng = np.random.default_rng(0)
    now, number = 0.0, 0
    for _ in range(200):
        # Some history, so that there is a forecast.
        now += 0.002
        scheduler.submit(_request(number, known, rng, state, now), now)
        number += 1
        for dispatch in scheduler.poll(now).dispatches:
            scheduler.complete(dispatch.batch_id, now + 0.001)
    (running,) = _blocked(scheduler, known, rng, state, now, number)
    for index in range(state.rows):
        scheduler.submit(_request(number + 1 + index, known, rng, state, now + 1e-5 * index), now)
    scheduler.complete(running, now + 0.001)
    scheduler.poll(now + 0.001)
    assert tap.asked is not None, "a slot was free"
    memory, view = tap.asked
    return _median(lambda: tap.policy.decide(memory, view, now + 0.001), repeats)


def _blocked(
    scheduler: Scheduler, known: Sequence[Family], rng: np.random.Generator, state: State, now: float, number: int
) -> list[int]:
    scheduler.submit(_request(number, known, rng, state, now), now)
    return [dispatch.batch_id for dispatch in scheduler.poll(now).dispatches]


def _request(number: int, known: Sequence[Family], rng: np.random.Generator, state: State, now: float) -> Request:
    family = known[number % len(known)].name
    return Request(number, family, (int(rng.integers(state.classes)),), now, now + SLO_S)


def _median(decide: Callable[[], object], repeats: int) -> float:
    took = []
    for _ in range(repeats):
        started = time.thread_time_ns()
        decide()
        took.append(time.thread_time_ns() - started)
    return statistics.median(took) / 1e3


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write `decisions.json`."""
    parser = argparse.ArgumentParser(prog="bench-decisions", description="what a decision costs")
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path("loadtests/results"))
    options = parser.parse_args(arguments)
    console, rows = Console(), []
    table = Table(title="Microseconds of a decision, medians", title_justify="left")
    for column in ("waiting", *POLICIES):
        table.add_column(column, justify="left" if column == "waiting" else "right")
    for state in STATES:
        found = {policy: microseconds(policy, state, options.repeats) for policy in POLICIES}
        table.add_row(str(state), *(f"{value:.0f}" for value in found.values()))
        rows.append({"state": state._asdict(), "microseconds": found})
    console.print(table)
    write_json(options.out / "decisions.json", {"machine": machine_fingerprint().description, "states": rows})


if __name__ == "__main__":
    main()
