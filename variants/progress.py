"""How far a build is and how long it will still take, and two ways to show it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import NamedTuple, Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

_PLAN_COUNTS = 0.25
"""The plan counts as this share of it, done just as planned: one short stage that took long says little."""
_KNOWN_AT = 0.5
"""From this share of a stage on its own pace alone counts; before that, the less is done, the more the plan."""


class Step(NamedTuple):
    """One state of the build: the stage, the fraction in [0, 1] of all work done, and seconds gone and to come."""

    stage: str
    fraction: float
    elapsed_s: float
    remaining_s: float


class Display(Protocol):
    """Something that shows a build. Used as a context manager around it."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, step: Step) -> None:
        """Show where the build is."""

    def log(self, line: str) -> None:
        """Show one line that stays."""


class BuildProgress:
    """Estimates a build's remaining time from the seconds its stages were planned to take and the pace so far.

    `plan` has the expected seconds of every stage, in order. Seconds are scaled by how the stages so far compared with
    their plan, the current one by its own pace as it gets known: the estimate does not jump where a stage ends. The
    clock is an argument.
    """

    def __init__(
        self, plan: Mapping[str, float], display: Display, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._plan = {stage: max(seconds, 1e-3) for stage, seconds in plan.items()}
        self._display = display
        self._clock = clock
        self._started_s = clock()
        self._stage_started_s = self._started_s
        self._stage = ""
        self.seconds: dict[str, float] = {}
        """How long each finished stage took."""

    def begin(self, stage: str) -> None:
        """End the stage before and begin this one."""
        self.end()
        self._stage = stage
        self._stage_started_s = self._clock()
        self.advance(0.0)

    def end(self) -> None:
        """End the current stage, if there is one."""
        if self._stage:
            self.seconds[self._stage] = self._clock() - self._stage_started_s
            self._stage = ""

    def advance(self, fraction: float) -> None:
        """Report the fraction in [0, 1] done of the current stage."""
        fraction = min(max(fraction, 0.0), 1.0)
        now_s = self._clock()
        stage_s = now_s - self._stage_started_s
        done_plan_s = sum(self._plan[stage] for stage in self.seconds)
        known_s = _PLAN_COUNTS * sum(self._plan.values())
        spent_s, planned_s = known_s + sum(self.seconds.values()), known_s + done_plan_s
        expected_s = max(self._plan[self._stage] * spent_s / planned_s, stage_s)
        if fraction > 0.0:
            own = min(1.0, fraction / _KNOWN_AT)
            expected_s = own * stage_s / fraction + (1.0 - own) * expected_s
        pace = (spent_s + expected_s) / (planned_s + self._plan[self._stage])
        to_come_s = sum(self._plan[stage] for stage in self._plan if stage not in self.seconds and stage != self._stage)
        done_s = done_plan_s + fraction * self._plan[self._stage]
        self._display.show(
            Step(
                stage=self._stage,
                fraction=done_s / sum(self._plan.values()),
                elapsed_s=now_s - self._started_s,
                remaining_s=expected_s - stage_s + to_come_s * pace,
            )
        )


class BarDisplay:
    """A progress bar on a terminal."""

    def __init__(self, title: str, console: Console | None = None) -> None:
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[remaining]}"),
            console=console,
            transient=True,
        )
        self._title = title
        self._task = self._progress.add_task(title, total=1.0, remaining="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, step: Step) -> None:
        """Move the bar."""
        self._progress.update(
            self._task,
            completed=step.fraction,
            description=f"{self._title}: {step.stage}",
            remaining=f"about {duration(step.remaining_s)} left",
        )

    def log(self, line: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(line, markup=False, highlight=False)


class LineDisplay:
    """Plain lines for logs and pipes: one at each stage, and one at each tenth of the work within it."""

    def __init__(self, title: str, stream: TextIO | None = None) -> None:
        self._title = title
        self._stream = stream or sys.stderr
        self._shown = ("", -1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.flush()

    def show(self, step: Step) -> None:
        """Print a line at a new stage and at each further tenth."""
        tenth = (step.stage, int(step.fraction * 10))
        if tenth != self._shown:
            self._shown = tenth
            self.log(
                f"{self._title}: {step.stage}, {step.fraction:.0%} done, {duration(step.elapsed_s)} gone, "
                f"about {duration(step.remaining_s)} left"
            )

    def log(self, line: str) -> None:
        """Print a line."""
        print(line, file=self._stream, flush=True)


def open_display(title: str) -> Display:
    """Return a bar where the error output is a terminal, plain lines elsewhere."""
    console = Console(stderr=True)
    return BarDisplay(title, console) if console.is_terminal else LineDisplay(title)


def duration(seconds: float) -> str:
    """Return seconds as people say them: `8 s`, `2 min 05 s`."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02} s"
