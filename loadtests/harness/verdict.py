"""Verdicts: what was wanted, what was found, and how a command says so with its exit code. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from loadtests.outcomes import Fate
from loadtests.scoring import Score


class Outcome(StrEnum):
    """How a load test ended."""

    PASSED = "passed"
    FAILED = "failed"
    INVALID = "invalid"
    INTERRUPTED = "interrupted"


EXIT_CODES = {Outcome.PASSED: 0, Outcome.INVALID: 3, Outcome.FAILED: 4, Outcome.INTERRUPTED: 130}
"""1 is for what could not be tested at all, 2 for wrong flags, as everywhere."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was wanted. `passed` None: it could not be judged, which counts neither way."""

    what: str
    passed: bool | None
    found: str
    wanted: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a load test comes to. `faults` say why the numbers are not the gateway's."""

    outcome: Outcome
    checks: tuple[Check, ...]
    faults: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """What the command ends with."""
        return EXIT_CODES[self.outcome]

    def values(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "outcome": self.outcome.value,
            "exit_code": self.exit_code,
            "checks": [asdict(check) for check in self.checks],
            "faults": list(self.faults),
        }


@dataclass(frozen=True, slots=True)
class Wanted:
    """Thresholds. Shares are of all requests; None is not asked for. `failed` is the most that may be lost.

    What is asked for and cannot be judged is missed.
    """

    attainment: float = 0.99
    effective_accuracy: float | None = None
    p99_s: float | None = None
    failed: float = 0.0


def verdict(checks: Sequence[Check], faults: Sequence[str], *, interrupted: bool = False) -> Verdict:
    """Who was interrupted has no verdict; who was not measured has neither passed nor failed."""
    if interrupted:
        outcome = Outcome.INTERRUPTED
    elif faults:
        outcome = Outcome.INVALID
    else:
        outcome = Outcome.FAILED if any(check.passed is False for check in checks) else Outcome.PASSED
    return Verdict(outcome, tuple(checks), tuple(faults))


def checks_of(score: Score, wanted: Wanted, accuracy_rests_on: str = "") -> list[Check]:
    """Hold one run's score against what is wanted; what its accuracy rests on is said beside it."""
    failed = score.fates[Fate.FAILED]
    found = [
        Check(
            "answered in time",
            score.attainment >= wanted.attainment,
            percent(score.attainment),
            f"at least {bound(wanted.attainment)}",
        ),
        Check("lost", failed <= wanted.failed, percent(failed), f"at most {bound(wanted.failed)}"),
    ]
    if wanted.effective_accuracy is not None:
        known = not math.isnan(score.effective_accuracy)
        rests = f" ({accuracy_rests_on})" if accuracy_rests_on else ""
        found.append(
            Check(
                "correct in time",
                known and score.effective_accuracy >= wanted.effective_accuracy,
                percent(score.effective_accuracy) + rests if known else "rows have no labels",
                f"at least {bound(wanted.effective_accuracy)}",
            )
        )
    if wanted.p99_s is not None:
        found.append(
            Check(
                "99th percentile",
                score.p99_s <= wanted.p99_s,
                f"{score.p99_s * 1e3:.2f} ms" if not math.isnan(score.p99_s) else "no answers",
                f"at most {wanted.p99_s * 1e3:g} ms",
            )
        )
    return found


def percent(share: float) -> str:
    """A share with as many digits as it takes to tell it from 100 %, a dash where there is none."""
    if math.isnan(share):
        return "-"
    if share == 1.0:
        return "100 %"
    digits = 1 if share < 0.9 else 2 if share < 0.999 else 3
    text = f"{share * 100.0:.{digits}f} %"
    return "99.999 %" if text.startswith("100") else text


def bound(share: float) -> str:
    """A share that somebody has named, as it was named."""
    return f"{share * 100.0:.6g} %"
