"""How fast a device is, as the batches of all families on it show together.

Where many families are asked for now and then, each has few batches to learn from, and forgets between them; together
they have enough. So the factors of a family's beliefs (`router.beliefs`) multiply one that all families have in common.
It moves by the same errors. A family whose profile is wrong moves it as well, so it is bounded: others are taken to be
at most twice as slow by that, which their own batches correct.

What a batch takes beside its rows (`router.setup`) they have in common as well. A step of that is taken out of the
factor, which may be lower by as much.
"""

from __future__ import annotations

import math

from router.setup import Setup

LEAST_PACE, MOST_PACE = 0.5, 2.0
FADE_AFTER_S = 1.0
FADE_HALF_LIFE_S = 1.0


class Pace:
    """`factor`: observed over profiled seconds, beside what `setup` explains; 1.0 at the start.

    At most `MOST_PACE`, and no less than `LEAST_PACE` over what the setup makes usual batches longer by.
    """

    __slots__ = ("_faded_s", "_least", "_observed_s", "factor", "setup")

    def __init__(self) -> None:
        self.factor = 1.0
        self.setup = Setup()
        self._least = LEAST_PACE
        self._observed_s = self._faded_s = -math.inf

    def learn(self, times: float, now: float) -> None:
        """By a batch, as little of it as is to be learnt: multiply by so much."""
        self._observed_s = now
        factor = self.factor * times
        self.factor = MOST_PACE if factor > MOST_PACE else self._least if factor < self._least else factor

    def settle(self) -> None:
        """The setup has moved: what batches take longer by it on average, they are no longer slow by the factor."""
        self._least = LEAST_PACE / self.setup.usual
        self.factor = min(max(self.factor / self.setup.moved, self._least), MOST_PACE)

    def fade(self, now: float) -> None:
        """Forget, once nothing has run on the device for a while: nothing that is refused would ever correct it."""
        before_s, self._faded_s = self._faded_s, max(now, self._faded_s)
        since_s = max(before_s, self._observed_s + FADE_AFTER_S)
        if now > since_s > -math.inf:
            keep = 0.5 ** ((now - since_s) / FADE_HALF_LIFE_S)
            self.factor **= keep
            self.setup.fade(keep)
            self._least = LEAST_PACE / self.setup.usual


class Paces:
    """The pace of each device by name; the first one, on which all slots are where they are alike, is ""."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, Pace] = {}

    def of(self, device: str) -> Pace:
        """The pace of that device, the same each time."""
        return self._known.setdefault(device, Pace())
