"""How much slower batches are beside busy neighbours: learnt from batches that began in company and alone.

The correction of `router.latency` follows the machine as it is on average, whoever is busy; a neighbour that comes and
goes from batch to batch is too quick for it. So the seconds of batches are regressed, exponentially weighted, on the
share of the other slots' threads that were busy when they began. The regression is about its means: a batch that begins
in the usual company is planned as without it, and where the company never changes nothing can be learnt and nothing is
planned differently. The variance in the denominator is raised by `SHRINK`, so that a little variation proves little.
"""

from __future__ import annotations

STEP = 0.02
SHRINK = 0.02
MOST = 1.5
"""Two neighbours that double each other's time have 1.0."""
CLIP = 3.0


class Interference:
    """What one device's batches of one family lose to busy neighbours; `slope` in [0, `MOST`] is by how much of its
    seconds a batch is longer where all neighbours are busy instead of none.
    """

    __slots__ = ("_both", "_crowd", "_ratio", "_spread", "slope")

    def __init__(self) -> None:
        self.slope = 0.0
        self._crowd, self._ratio = -1.0, 1.0
        self._spread = self._both = 0.0

    def factor(self, crowd: float) -> float:
        """Seconds beside that share of busy neighbours, in [0, 1], over those beside as many as usual."""
        return 1.0 if self._crowd < 0.0 else max(0.25, 1.0 + self.slope * (crowd - self._crowd))

    def observe(self, crowd: float, ratio: float, expected: float) -> float:
        """Learn from a batch that took `ratio` of its profiled seconds where `expected` was usual.

        Returns the ratio as it would have been in the usual company.
        """
        usual = ratio / self.factor(crowd)
        over = min(max(ratio / expected, 1.0 / CLIP), CLIP)
        if self._crowd < 0.0:
            self._crowd, self._ratio = crowd, over
        more, longer = crowd - self._crowd, over - self._ratio
        self._crowd += STEP * more
        self._ratio += STEP * longer
        self._spread += STEP * (more * more - self._spread)
        self._both += STEP * (more * longer - self._both)
        self.slope = min(max(self._both / ((self._spread + SHRINK) * self._ratio), 0.0), MOST)
        return usual
