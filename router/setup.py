"""What a batch takes beside its rows: learnt from small and large batches of all families on a device.

Where many models take turns, each finds caches and memory full of the others', and brings its weights anew: a batch
takes longer by about the same, however many rows it has. Learnt as a factor it would make large batches look as many
times slower as small ones are; nothing large would seem to be in time any more, and in batches of few rows there is
no time for anybody. So it is learnt apart, in single rows of the batch's model: large models bring more.

With x = observed / expected seconds, where nothing beside the rows is expected, and z = the profiled seconds of a
single row over those of the batch, x is regressed on z, exponentially weighted, about the means of both that each
variant has for itself: one whose profile is wrong, or that runs in batches of another size than others do, shows
nothing by that. What does not depend on z is for `router.beliefs` to learn. The variance in the denominator is raised
by `SHRINK`, so that a little variation proves little: where all batches are alike nothing can be told apart, and
nothing is planned differently.

The seconds of all batches are tabulated with it, so it moves in steps (`LEVELS`), a step in `EVERY` batches at most.
"""

from __future__ import annotations

STEP = 0.02
SHRINK = 0.01
CLIP = 3.0
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
KEPT = 0.25
"""A level is left for the one below where the slope is no more than so much of the way up from that."""
EVERY = 20


class Usual:
    """The means of one variant; negative before its first batch."""

    __slots__ = ("over", "single")

    def __init__(self) -> None:
        self.single = self.over = -1.0


class Setup:
    """`rows`: a batch takes as much longer as so many single rows of its model, one of `LEVELS`; none at the start.

    `usual` is how many times as long the batches of the device take by that, on average, and `moved` over before.
    """

    __slots__ = ("_both", "_level", "_lower", "_since", "_single", "_spread", "_upper", "moved", "rows", "usual")

    def __init__(self) -> None:
        self._spread = self._both = self._single = 0.0
        self.usual = 1.0
        self._be(0)

    def learn(self, variant: Usual, single: float, over: float) -> bool:
        """A batch of which a `single` row is that share, in (0, 1], took `over` times what its rows were expected to.

        Whether `rows` is another one from now on.
        """
        expected = 1.0 + self.rows * single
        if over > CLIP * expected:
            over = CLIP * expected
        elif over < expected / CLIP:
            over = expected / CLIP
        self._single += STEP * (single - self._single)
        if variant.single < 0.0:
            variant.single, variant.over = single, over
        more, longer = single - variant.single, over - variant.over
        variant.single += STEP * more
        variant.over += STEP * longer
        self._spread += STEP * (more * more - self._spread)
        self._both += STEP * (more * longer - self._both)
        self._since += 1
        slope = self._both / (self._spread + SHRINK)
        if self._lower <= slope < self._upper or self._since < EVERY:
            return False
        self._be(self._level + (1 if slope >= self._upper else -1))
        return True

    def fade(self, keep: float) -> None:
        """Forget all but a share of it."""
        self._both *= keep
        while self._both / (self._spread + SHRINK) < self._lower:
            self._be(self._level - 1)

    def _be(self, level: int) -> None:
        self._level, self._since, self.rows = level, 0, LEVELS[level]
        before, self.usual = self.usual, 1.0 + self.rows * self._single
        self.moved = self.usual / before
        self._upper = LEVELS[level + 1] if level + 1 < len(LEVELS) else float("inf")
        below = LEVELS[level - 1] if level else 0.0
        self._lower = below + KEPT * (self.rows - below) if level else -float("inf")
