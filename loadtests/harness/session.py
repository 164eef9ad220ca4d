"""One load test: sends what a profile asks for, keeps what came of it, and shows how it goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from loadtests.harness.cargo import Plan
from loadtests.harness.conductor import Conductor
from loadtests.harness.measured import Run
from loadtests.harness.subject import Subject
from loadtests.harness.verdict import Verdict


class Display(Protocol):
    """Who shows how it goes."""

    def begin(self, label: str, plan: Plan) -> None:
        """A plan is about to be sent."""

    def counts(self, counts: Mapping[str, Any]) -> None:
        """How far it is; see `loadtests.harness.station`."""

    def end(self, run: Run | None) -> None:
        """It has been sent; None where it was cut before it began."""

    def say(self, line: str) -> None:
        """Something worth knowing."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What a profile came to. `details` is its own, as JSON has it; it may be shown in `lines`."""

    verdict: Verdict
    lines: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


class Session:
    """The runs of one load test, in order."""

    def __init__(self, conductor: Conductor, subject: Subject, display: Display) -> None:
        self._conductor = conductor
        self.subject = subject
        self.display = display
        self.runs: list[Run] = []

    @property
    def interrupted(self) -> bool:
        """Whether somebody wants it to end: a profile then sends no more and judges what there is."""
        return self._conductor.interrupted

    def send(
        self, plan: Plan, label: str, seed: int, rate: float | None, looked: Callable[[], None] = lambda: None
    ) -> Run | None:
        """Send a plan; `looked` is called a few times a second meanwhile. None where it was cut before it began."""
        self.display.begin(label, plan)

        def watch(counts: Mapping[str, Any] | None) -> None:
            looked()
            if counts is not None:
                self.display.counts(counts)

        ran = self._conductor.run(plan, watch)
        run = Run(label, self.subject, ran, seed, rate) if ran is not None else None
        if run is not None:
            self.runs.append(run)
        self.display.end(run)
        return run

    def pause(self, seconds: float) -> None:
        """Wait, but not for who wants it to end."""
        until_s = time.monotonic() + seconds
        while not self.interrupted and time.monotonic() < until_s:
            time.sleep(0.05)
