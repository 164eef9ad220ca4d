"""How fast a device is, as the batches of all families on it show together.

Where many families are asked for now and then, each has few batches to learn from, and forgets between them; together
they have enough. So the factors of a family's beliefs (`router.beliefs`) multiply one that all families have in common.
It moves by the same errors. A family whose profile is wrong moves it as well, so it is bounded: others are taken to be
at most twice as slow by that, which their own batches correct.
"""

from __future__ import annotations

import math

LEAST_PACE, MOST_PACE = 0.5, 2.0
FADE_AFTER_S = 1.0
FADE_HALF_LIFE_S = 1.0


class Pace:
    """`factor`: observed over profiled seconds, in [`LEAST_PACE`, `MOST_PACE`]; 1.0 at the start."""

    __slots__ = ("_faded_s", "_observed_s", "factor")

    def __init__(self) -> None:
        self.factor = 1.0
        self._observed_s = self._faded_s = -math.inf

    def learn(self, times: float, now: float) -> None:
        """By a batch, as little of it as is to be learnt: multiply by so much."""
        self._observed_s = now
        factor = self.factor * times
        self.factor = MOST_PACE if factor > MOST_PACE else LEAST_PACE if factor < LEAST_PACE else factor

    def fade(self, now: float) -> None:
        """Forget, once nothing has run on the device for a while: nothing that is refused would ever correct it."""
        before_s, self._faded_s = self._faded_s, max(now, self._faded_s)
        since_s = max(before_s, self._observed_s + FADE_AFTER_S)
        if now > since_s > -math.inf:
            self.factor **= 0.5 ** ((now - since_s) / FADE_HALF_LIFE_S)


class Paces:
    """The pace of each device by name; the first one, on which all slots are where they are alike, is ""."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, Pace] = {}

    def of(self, device: str) -> Pace:
        """The pace of that device, the same each time."""
        return self._known.setdefault(device, Pace())
