"""How a machine differs from the profile, as far as it is believed: learnt from batches, forgotten while none run.

Source of the correction: the two-level rule of our routing study, in logarithms and with a third level. A factor
`pace` of all families (`router.pace`) follows the machine (a busy neighbour slows everything), one `shared` by all
variants of the family what is left over of that, and one factor per variant the rest (a profile that was wrong for one
of them). With x = observed / profiled and e = x / (pace * shared * own[v]) - 1:

    log pace       += 0.02 * e
    log shared     += 0.02 * e
    log own[v]     += 0.04 * e

What one variant shows tells its product alone, not how that is made up. So all move by the same error, in the same
proportion each time: of what is learnt from one variant, the others have half, in logarithms, and other families a
quarter. The study moved each factor by an error of its own, the product of which is right as well; but its noise moves
the factors apart, without end: after 100,000 batches of one variant that spread by a tenth the others were believed to
take twice as long as they do, at a third a thousand times.

An observation counts for at most three times and at least a third of what was expected. The study skipped larger
ones as stragglers; clipping keeps a machine that really became four times slower from never being believed.

Only batches that run teach. A belief that stops batches from running (everything is shed because the machine was
slow) would therefore last for ever, so beliefs fade towards the profile while nothing is observed: all of them with a
half-life of a second once the family has run nothing for a second, a variant's own with one of ten seconds while
others run.

A plan must hold for most batches, not for half of them: seconds are planned at a quantile of what is observed over what
was expected. The quantile is tracked by stochastic approximation (Robbins and Monro, 1951): up by `SPREAD_STEP` times
`QUANTILE` after a batch that took longer, down by the rest after one that did not.
"""

from __future__ import annotations

import math

from router.pace import FADE_AFTER_S, FADE_HALF_LIFE_S, Pace

STEP = 0.02
"""Of the error, in logarithms: for the pace and what is shared. A variant's own factor moves by twice that."""
CLIP = 3.0
QUANTILE = 0.9
SPREAD = 1.12
"""Planned over expected seconds at the start: right for a machine whose batch times spread by 8 %."""
SPREAD_STEP = 0.02
LEAST_SPREAD, MOST_SPREAD = 1.02, 2.0
OWN_FADE_HALF_LIFE_S = 10.0
FADE_STEP_S = 0.1
"""Fading is looked at this often."""


class Beliefs:
    """What is believed of one family's variants on one device.

    `pace.factor`, `shared` and `own`, by variant, multiply profiled seconds to what is expected; `spread` multiplies
    that to what is planned where no margin is set.
    """

    __slots__ = ("_faded_s", "_observed_s", "own", "pace", "shared", "spread")

    def __init__(self, variants: int, pace: Pace) -> None:
        self.pace = pace
        self.shared = 1.0
        self.own = [1.0] * variants
        self.spread = SPREAD
        self._observed_s = [-math.inf] * variants
        self._faded_s = -math.inf

    def learn(self, variant: int, ratio: float, now: float) -> None:
        """A batch has taken this many times as long as profiled."""
        self._observed_s[variant] = now
        expected = self.pace.factor * self.shared * self.own[variant]
        times = ratio / expected
        passed = times > self.spread
        spread = self.spread * math.exp(SPREAD_STEP * (QUANTILE if passed else QUANTILE - 1.0))
        self.spread = LEAST_SPREAD if spread < LEAST_SPREAD else MOST_SPREAD if spread > MOST_SPREAD else spread
        clipped = 1.0 / CLIP if times < 1.0 / CLIP else CLIP if times > CLIP else times
        times = math.exp(STEP * (clipped - 1.0))
        self.pace.learn(times, now)
        self.shared *= times
        self.own[variant] *= times * times

    def fade(self, now: float) -> float | None:
        """Forget what nothing has confirmed for a while.

        Returns the share that is kept of all that is learnt of the device, 1.0 while batches run there, and `None`
        where it is too early to look.
        """
        before_s = self._faded_s
        if now - before_s < FADE_STEP_S:
            return None
        self._faded_s = now
        self.pace.fade(now)
        if before_s == -math.inf:
            return None
        # Not since it was asked last: while a family runs without a pause, nobody asks.
        stale_s = max(self._observed_s) + FADE_AFTER_S
        if now > stale_s:
            keep: float = 0.5 ** ((now - max(before_s, stale_s)) / FADE_HALF_LIFE_S)
            self.shared = 1.0 + keep * (self.shared - 1.0)
            self.spread = SPREAD + keep * (self.spread - SPREAD)
            self.own = [1.0 + keep * (own - 1.0) for own in self.own]
            return keep
        self.own = [
            own
            if own == 1.0 or now <= seen_s + FADE_AFTER_S
            else 1.0 + 0.5 ** ((now - max(before_s, seen_s + FADE_AFTER_S)) / OWN_FADE_HALF_LIFE_S) * (own - 1.0)
            for own, seen_s in zip(self.own, self._observed_s, strict=True)
        ]
        return 1.0
