"""What one run of one policy on one trace and seed gave, and the file in which runs are kept as they are made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from loadtests.outcomes import Fate
from loadtests.revision import UNKNOWN
from loadtests.scoring import Score


class Key(NamedTuple):
    """What was run: all policies get the same arrivals for a trace and a seed."""

    policy: str
    trace: str
    seed: int


@dataclass(frozen=True, slots=True)
class Decisions:
    """What the policy took: microseconds of all its calls for each request, and of a call that started a batch."""

    per_request_us: float
    median_us: float
    p99_us: float


@dataclass(frozen=True, slots=True)
class Run:
    """One run, judged. Shares are of all arrivals, `accuracy`, `escalated`, `answers` and latencies of the answered.

    `goodput_per_s` counts answers in time over the nominal duration, `per_s` arrivals likewise. `decisions` is None
    for live runs. `faults` says why a live run is not a measurement. `commit` is what was measured, told as
    by `revision.commit_of`.
    """

    policy: str
    trace: str
    seed: int
    arrivals: int
    per_s: float
    effective_accuracy: float
    attainment: float
    accuracy: float
    goodput_per_s: float
    shed: float
    escalated: float
    p50_s: float
    p99_s: float
    p999_s: float
    answers: dict[str, float]
    decisions: Decisions | None = None
    faults: tuple[str, ...] = ()
    commit: str = UNKNOWN

    @property
    def key(self) -> Key:
        """What was run."""
        return Key(self.policy, self.trace, self.seed)

    @classmethod
    def judged(cls, key: Key, score: Score, duration_s: float, decisions: Decisions | None = None) -> Run:
        """The run that has this score; the arrivals were spread over `duration_s`."""
        return cls(
            *key,
            arrivals=score.arrivals,
            per_s=score.arrivals / duration_s,
            effective_accuracy=score.effective_accuracy,
            attainment=score.attainment,
            accuracy=score.accuracy,
            goodput_per_s=score.attainment * score.arrivals / duration_s,
            shed=score.fates[Fate.REFUSED],
            escalated=score.escalated,
            p50_s=score.p50_s,
            p99_s=score.p99_s,
            p999_s=score.p999_s,
            answers=score.answers,
            decisions=decisions,
            faults=score.faults,
        )


class BookError(ValueError):
    """A file of runs cannot be used. The message is one line."""


class Book:
    """Runs in a JSON file, one line each; every `add` leaves a whole file behind, so that an interrupted suite goes on.

    `context` says under which conditions runs are comparable: a file of another context is refused unless it is to be
    written `anew`. The `commit` of runs is noted, but is no such condition: most commits change nothing that is
    measured, and a suite of hours goes on after one. Raises `BookError`.
    """

    def __init__(self, path: Path, context: Mapping[str, Any], *, anew: bool = False, commit: str = UNKNOWN) -> None:
        self.path = path
        self.commit = commit
        self.context: dict[str, Any] = orjson.loads(orjson.dumps(dict(context)))
        self.extra: dict[str, Any] = {}
        self._runs: dict[Key, Run] = {}
        if path.exists() and not anew:
            found, runs = read_runs(path)
            differing = [name for name, value in self.context.items() if found.get(name) != value]
            if differing:
                raise BookError(f"{path}: has runs of another {differing[0]}; move it away or give --anew")
            self._runs = {run.key: run for run in runs}

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs, in the order in which they were made."""
        return tuple(self._runs.values())

    @property
    def commits(self) -> tuple[str, ...]:
        """What the runs measured, in the order in which they were made."""
        return tuple(dict.fromkeys(run.commit for run in self._runs.values()))

    def __contains__(self, key: Key) -> bool:
        """Whether there is a valid run; an invalid one is to be made again."""
        return key in self._runs and not self._runs[key].faults

    def add(self, runs: Iterable[Run]) -> None:
        """Keep runs, of the book's commit, and write the file; a second run of one key replaces the first."""
        self._runs.update({run.key: dataclasses.replace(run, commit=self.commit) for run in runs})
        self.write()

    def write(self) -> None:
        """Write the file anew, in one step."""
        values = {**self.context, "commit": ", ".join(self.commits), **self.extra}
        head = orjson.dumps(values, option=orjson.OPT_INDENT_2).decode()
        lines = ",\n".join(orjson.dumps(_rounded(dataclasses.asdict(run))).decode() for run in self._runs.values())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".part")
        beside.write_text(f'{{"context": {head},\n"runs": [\n{lines}\n]}}\n', encoding="utf-8")
        beside.replace(self.path)


def read_runs(path: Path) -> tuple[dict[str, Any], tuple[Run, ...]]:
    """Context and runs of a file that a `Book` wrote. Raises `BookError`."""
    try:
        values = orjson.loads(path.read_bytes())
        return values["context"], tuple(_run(run) for run in values["runs"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BookError(f"{path}: cannot be read as runs: {' '.join(str(error).split())[:200]}") from None


def _run(values: dict[str, Any]) -> Run:
    values = {name: math.nan if value is None and name != "decisions" else value for name, value in values.items()}
    decisions = values.pop("decisions")
    return Run(
        **{**values, "faults": tuple(values["faults"])},
        decisions=None if decisions is None else Decisions(**decisions),
    )


def _rounded(value: Any) -> Any:
    """Seven digits: shares of 100,000 requests are told exactly enough, and files stay readable."""
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    return float(f"{value:.7g}") if isinstance(value, float) else value
