"""One trial of a revision beside the one that serves: what runs, and what is told of it then and afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from time import monotonic
from typing import Any

from router.canary import Canary, Trial, Verdict
from router.family import Family, VariantProfile
from service.loaded_family import LoadedFamily


class State(StrEnum):
    """How a trial stands; the label `state` in metrics. All but the first two are ends."""

    RUNNING = "running"
    PASSED = "passed"
    """A shadow that could be promoted: it stays loaded until somebody promotes it or stops it."""
    PROMOTED = "promoted"
    DISAGREES = "disagrees"
    """Rolled back: see `router.canary.Verdict`."""
    SLOW = "slow"
    """Rolled back: likewise."""
    BROKEN = "broken"
    """Rolled back: likewise."""
    FAILED = "failed"
    """Rolled back: it was to be promoted, but could not take the other one's place."""
    STOPPED = "stopped"
    """Ended by an operator: rolled back by hand, or another revision was loaded."""


ROLLED_BACK = frozenset({State.DISAGREES, State.SLOW, State.BROKEN, State.FAILED})
"""Ends that nobody asked for."""


@dataclass(slots=True)
class Report:
    """What is known of the last trial of a model. It outlives the trial and holds nothing of the models."""

    model: str
    revision: str
    serving: str
    rules: Trial
    started_s: float
    state: State = State.RUNNING
    why: str = ""
    ended_s: float | None = None
    answers: int = 0
    """Requests that the new revision answered; of a shadow, copies that both answered."""
    agreed: int = 0
    disagreed: int = 0
    skipped: int = 0
    """Rows that were to be compared and were not: there was no spare time, or one of both had no answer."""
    pairs: int = 0
    """Answers of both whose times were compared, one with one."""
    fallbacks: int = 0
    """Requests that the old revision answered because the new one failed on them or refused them."""

    def shown(self) -> dict[str, Any]:
        """As JSON has it; `seconds` is how long the trial has lasted."""
        ended_s = monotonic() if self.ended_s is None else self.ended_s
        return {
            "model": self.model,
            "revision": self.revision,
            "serving": self.serving,
            "state": self.state.value,
            "why": self.why or self._awaited(),
            "share": self.rules.share,
            "shadow": self.rules.shadow,
            "seconds": round(ended_s - self.started_s, 3),
            "answers": self.answers,
            "answers_wanted": self.rules.answers,
            "agreed": self.agreed,
            "disagreed": self.disagreed,
            "skipped": self.skipped,
            "pairs": self.pairs,
            "fallbacks": self.fallbacks,
        }

    def _awaited(self) -> str:
        if self.state is State.RUNNING and self.answers >= self.rules.answers:
            return "waits for more comparisons, or pairs of answers of both revisions, to be sure"
        return ""


class Tryout:
    """A trial that runs. `loaded` is the revision on trial, as a family under a hidden name.

    `is_shared` says that its sessions may go over to the family that takes the other one's place.
    """

    __slots__ = ("canary", "concluded", "is_shared", "loaded", "report")

    def __init__(self, report: Report, loaded: LoadedFamily, *, is_shared: bool) -> None:
        self.report = report
        self.loaded = loaded
        self.is_shared = is_shared
        self.canary = Canary(report.rules)
        self.concluded = False
        """Whether its verdict is being acted on."""

    def answered(self, new: bool, seconds: float) -> None:
        """See `Canary.answered`."""
        self.canary.answered(new, seconds)
        self.report.pairs = self.canary.pairs

    def gave_up(self, new: bool, seconds: float) -> None:
        """See `Canary.gave_up`."""
        self.canary.gave_up(new, seconds)
        self.report.pairs = self.canary.pairs

    def broke(self) -> None:
        """A variant of the new revision is in quarantine, which ends the trial."""
        self.canary.broke()

    def compared(self, agreed: bool) -> None:
        """See `Canary.compared`."""
        self.report.agreed += agreed
        self.report.disagreed += not agreed
        self.canary.compared(agreed)

    @property
    def verdict(self) -> Verdict:
        """See `Canary.verdict`."""
        return self.canary.verdict


def counterpart(family: Family, like: VariantProfile) -> str | None:
    """The loaded variant that stands in one revision for `like` in another: that of the same name, else the one nearest
    in measured quality, the cheaper of two; `None` where nothing is loaded.
    """
    same = family.index(like.name)
    if same is not None and family.is_loaded(same):
        return like.name
    loaded = [variant for index, variant in enumerate(family.variants) if family.is_loaded(index)]
    # As measured: what one of them is believed to have lost by now says nothing of which was built like which.
    nearest = min(loaded, key=lambda variant: abs(variant.measured - like.measured), default=None)
    return None if nearest is None else nearest.name
