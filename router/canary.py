"""Whether a new revision of a family may take over: a share of the traffic tries it, and what it does there decides.

A name (a tenant's or a request's) always falls on the same side, and who is on the new side at some share is there at
every larger one. The new revision is judged by two sequential tests (Wald's sequential probability ratio test, 1945),
which may be looked at after every answer: how often it disagrees with the old one where both answered, and how often it
is slow where the old one is not. Either finds a regression: then it is rolled back, for good. It is promoted after
enough answers if neither has.

Slow is what takes longer than the old one's usual worst of late. Machines have slow spells, in which both are; so
answers are compared in pairs of one moment, and only pairs that differ count (Wald's test of double dichotomies,
"Sequential Analysis", 1947, chapter 6). Answers of one batch take alike, and the first after a change from one
revision to the other take longer, for caches: of a run of the new one's and the run of the old one's that follows, the
first two are a pair. What takes several times that long needs none, as long as nothing of the old one's does.

As a shadow it answers nobody: it gets copies of that share, and the verdict says whether it could be promoted.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from router.sampling import fraction

RECENT = 512
"""Latencies of the old revision that its usual worst is read from."""
LEAST_RECENT = 64
"""With fewer of them nobody's latencies say anything yet."""
READ_EVERY = 32
"""The usual worst is read anew after so many answers."""
GROSSLY = 4.0
"""What takes so many times the old one's usual worst is slow by itself."""


class Verdict(StrEnum):
    """How the trial stands; all but `RUNNING` are final."""

    RUNNING = "running"
    PROMOTED = "promoted"
    DISAGREES = "disagrees"
    """Rolled back: it answers differently more often than a new revision may."""
    SLOW = "slow"
    """Rolled back: it was slower than the old one's usual worst too often where the old one was not."""
    BROKEN = "broken"
    """Rolled back: a variant of it crashed, hung, ran out of memory or could not be brought back."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The rules of one trial. All but `answers` are fractions in (0, 1).

    `share` of the names try the new revision. It may disagree with the old one on `disagreement` of the rows (two good
    trainings of one network do), and is rolled back where that is `regression` more. Of the old one's answers `usual`
    are within its usual worst; the new one is rolled back where `slowdown` times as many as of the old one are not.
    Each test errs with the probability `risk` either way. Promotion takes so many `answers` of the new revision, and as
    many comparisons and pairs of answers as the tests want. Raises `ValueError` out of range.
    """

    share: float = 0.05
    shadow: bool = False
    disagreement: float = 0.05
    regression: float = 0.05
    usual: float = 0.95
    slowdown: float = 3.0
    risk: float = 0.001
    answers: int = 1000

    def __post_init__(self) -> None:
        for name in ("share", "disagreement", "regression", "usual", "risk"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ValueError(f"{name}: expected a fraction between 0 and 1, got {getattr(self, name)}")
        if self.disagreement + self.regression >= 1.0:
            raise ValueError("disagreement and regression: expected less than 1 together")
        if not 1.0 < self.slowdown < 1.0 / (1.0 - self.usual):
            raise ValueError(f"slowdown: expected between 1 and {1.0 / (1.0 - self.usual):g}, got {self.slowdown}")
        if self.answers < 1:
            raise ValueError(f"answers: expected at least 1, got {self.answers}")


class SequentialTest:
    """Whether hits come at rate `harmless` or at the higher rate `harmful`, with the risk of error `risk` either way.

    Evidence for harmlessness is kept no longer than it takes to accept it, so that harm that begins later is found as
    quickly as harm from the start.
    """

    __slots__ = ("_accept", "_hit", "_miss", "_reject", "_sum", "passed")

    def __init__(self, harmless: float, harmful: float, risk: float) -> None:
        self._hit = math.log(harmful / harmless)
        self._miss = math.log((1.0 - harmful) / (1.0 - harmless))
        self._reject = math.log((1.0 - risk) / risk)
        self._accept = -self._reject
        self._sum = 0.0
        self.passed = False
        """Whether harmlessness was accepted once."""

    def observe(self, hit: bool) -> bool:
        """Take note of one trial; true once harm is accepted."""
        self._sum += self._hit if hit else self._miss
        if self._sum <= self._accept:
            self._sum, self.passed = self._accept, True
        return self._sum >= self._reject

    def forget(self) -> None:
        """Drop what speaks for harm so far."""
        self._sum = min(self._sum, 0.0)


class Canary:
    """One trial of a new revision beside the old one."""

    __slots__ = (
        "_answers",
        "_disagreement",
        "_grossness",
        "_is_new",
        "_latest_s",
        "_old_s",
        "_since_read",
        "_slowness",
        "_unpaired_s",
        "_worst_s",
        "pairs",
        "trial",
        "verdict",
    )

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.verdict = Verdict.RUNNING
        self._answers = 0
        self._disagreement = SequentialTest(trial.disagreement, trial.disagreement + trial.regression, trial.risk)
        # Of pairs of which one is slow, so many have the new one as the slow one: half where both are alike.
        slow = 1.0 - trial.usual
        odds = _odds(slow * trial.slowdown) / _odds(slow)
        self._slowness = SequentialTest(0.5, odds / (1.0 + odds), trial.risk)
        self._grossness = SequentialTest(slow, slow * trial.slowdown, trial.risk)
        self.pairs = 0
        """Answers of both that were compared, one with one."""
        self._is_new = False
        """Whether the latest answer was the new one's."""
        self._unpaired_s = self._latest_s = 0.0
        """The first and the last answer of the new one's latest run."""
        self._old_s: deque[float] = deque(maxlen=RECENT)
        self._worst_s = math.inf
        self._since_read = 0

    def takes(self, name: str) -> bool:
        """Whether the new revision answers who has this name."""
        if self.verdict is Verdict.RUNNING:
            return not self.trial.shadow and self._is_drawn(name)
        return self.verdict is Verdict.PROMOTED and not self.trial.shadow

    def copies(self, name: str) -> bool:
        """Whether the new revision gets a copy of what the old one answers to this name."""
        return self.trial.shadow and self.verdict is Verdict.RUNNING and self._is_drawn(name)

    def compared(self, agreed: bool) -> None:
        """Both revisions answered one row, alike or not."""
        if self.verdict is Verdict.RUNNING and self._disagreement.observe(not agreed):
            self.verdict = Verdict.DISAGREES
        self._promote()

    def answered(self, new: bool, seconds: float) -> None:
        """A request was answered by the new revision, or by the old one, in so many seconds."""
        if self.verdict is not Verdict.RUNNING:
            return
        if new:
            self._new(seconds)
        else:
            self._old(seconds)
        self._is_new = new
        self._promote()

    def _new(self, seconds: float) -> None:
        self._answers += 1
        if self._is_new and seconds == self._latest_s:
            # Of the same batch: what befell that counts once.
            return
        if not self._is_new:
            self._unpaired_s = seconds
        self._latest_s = seconds
        if self._worst_s < math.inf and self._grossness.observe(seconds > GROSSLY * self._worst_s):
            self.verdict = Verdict.SLOW

    def _old(self, seconds: float) -> None:
        self._old_s.append(seconds)
        self._since_read += 1
        if len(self._old_s) >= LEAST_RECENT and (self._worst_s == math.inf or self._since_read >= READ_EVERY):
            self._since_read = 0
            recent = sorted(self._old_s)
            self._worst_s = recent[min(len(recent) - 1, math.ceil(self.trial.usual * len(recent)))]
        if seconds > GROSSLY * self._worst_s:
            self._grossness.forget()
        if self._is_new and self._worst_s < math.inf:
            self.pairs += 1
            old, new = seconds > self._worst_s, self._unpaired_s > self._worst_s
            if old != new and self._slowness.observe(new):
                self.verdict = Verdict.SLOW

    def broke(self) -> None:
        """A variant of the new revision broke so that it cannot be let at anybody."""
        if self.verdict is Verdict.RUNNING:
            self.verdict = Verdict.BROKEN

    def gave_up(self, new: bool, seconds: float) -> None:
        """A request ended without an answer, by its timeout or its caller, when a revision had computed so long.

        The answer would have taken longer: that is a slow one where it was beyond the usual worst by then, and says
        nothing else.
        """
        if seconds > self._worst_s:
            self.answered(new, seconds)

    def _is_drawn(self, name: str) -> bool:
        return fraction(name, "canary") < self.trial.share

    def _promote(self) -> None:
        enough = self._answers >= self.trial.answers and self._disagreement.passed and self._slowness.passed
        if enough and self.verdict is Verdict.RUNNING:
            self.verdict = Verdict.PROMOTED


def _odds(share: float) -> float:
    return share / (1.0 - share)
