"""What a batch takes beside its rows: learnt from small and large batches of all families on a device.

Where many models take turns, each finds caches and memory full of the others', and brings its weights anew: a batch
takes longer by about the same, however many rows it has. Learnt as a factor it would make large batches look as many
times slower as small ones are; nothing large would seem to be in time any more, and in batches of few rows there is
no time for anybody. So it is learnt apart, in single rows of the batch's model: large models bring more.

With x = observed / expected seconds, where nothing beside the rows is expected, and z = the profiled seconds of a
single row over those of the batch, x is regressed on z, exponentially weighted, about the means of both: what does
not depend on z is for `router.beliefs` to learn. The variance in the denominator is raised by `SHRINK`, so that a
little variation proves little: where all batches are alike nothing can be told apart, and nothing is planned
differently.

The seconds of all batches are tabulated with it, so it moves in steps (`LEVELS`).
"""

from __future__ import annotations

STEP = 0.02
SHRINK = 0.003
CLIP = 3.0
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
LOWER = 0.75
"""Of a level: where the slope is below that, a lower one is right."""


class Setup:
    """`rows`: a batch takes as much longer as so many single rows of its model, one of `LEVELS`; none at the start."""

    __slots__ = ("_both", "_next", "_over", "_single", "_spread", "rows")

    def __init__(self) -> None:
        self.rows = 0.0
        self._next = LEVELS[1]
        self._single = self._over = -1.0
        self._spread = self._both = 0.0

    def learn(self, single: float, over: float) -> float:
        """A batch of which a `single` row is that share, in (0, 1], took `over` times what its rows were expected to.

        Returns by how much all batches are expected to take longer or shorter from now on, on average: 1.0 where `rows`
        is as before.
        """
        expected = 1.0 + self.rows * single
        if over > CLIP * expected:
            over = CLIP * expected
        elif over < expected / CLIP:
            over = expected / CLIP
        if self._single < 0.0:
            self._single, self._over = single, over
        more, longer = single - self._single, over - self._over
        self._single += STEP * more
        self._over += STEP * longer
        self._spread += STEP * (more * more - self._spread)
        self._both += STEP * (more * longer - self._both)
        slope = self._both / (self._spread + SHRINK)
        if LOWER * self.rows <= slope < self._next or (slope < 0.0 and self.rows == 0.0):
            return 1.0
        before = self.rows
        self._move(slope)
        return (1.0 + self.rows * self._single) / (1.0 + before * self._single)

    def fade(self, keep: float) -> None:
        """Forget all but a share of it."""
        self._both *= keep
        slope = self._both / (self._spread + SHRINK)
        if slope < LOWER * self.rows:
            self._move(slope)

    def _move(self, slope: float) -> None:
        """Be the highest level that the slope reaches."""
        level = max([index for index, rows in enumerate(LEVELS) if rows <= slope], default=0)
        self.rows = LEVELS[level]
        self._next = LEVELS[level + 1] if level + 1 < len(LEVELS) else float("inf")
