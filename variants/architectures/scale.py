"""Growing and shrinking an architecture: width, depth and resolution multipliers, alone or in fixed proportion.

Compound scaling: Tan and Le, "EfficientNet", ICML 2019. Width and resolution multiply the arithmetic by their squares,
depth by itself, so with alpha * beta^2 * gamma^2 = 2 a step of one in `phi` doubles it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

ALPHA, BETA, GAMMA = 1.2, 1.1, 1.15
"""Depth, width and resolution per step, as the paper found them for its own base network."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Factors (more than 0) on the channels, on the blocks and on the side of the image. 1 changes nothing."""

    width: float = 1.0
    depth: float = 1.0
    resolution: float = 1.0

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.resolution) <= 0 or not math.isfinite(self.arithmetic):
            raise ValueError(f"{self}: every factor must be a number above 0")

    @property
    def arithmetic(self) -> float:
        """By how much the multiplications of a convolutional network grow, roughly."""
        return self.depth * self.width**2 * self.resolution**2

    def channels(self, count: int, divisor: int = 4) -> int:
        """Return a number of channels, scaled to a multiple of `divisor` and at least that.

        Never more than a tenth below the exact product, as in MobileNet's code (Howard et al., 2017).
        """
        exact = count * self.width
        rounded = max(divisor, int(exact + divisor / 2) // divisor * divisor)
        return rounded if rounded >= 0.9 * exact else rounded + divisor

    def blocks(self, count: int) -> int:
        """Return a number of blocks, scaled and rounded up: no stage loses its last one."""
        # Where the product is a whole number but for rounding errors, that is the number.
        return max(1, math.ceil(round(count * self.depth, 9)))

    def side(self, pixels: int, full: int) -> int:
        """Return the side in pixels nearest to the scaled one among those that divide `full`."""
        divisors = [full // step for step in range(1, full + 1) if full % step == 0]
        return min(divisors, key=lambda side: (abs(math.log(side / (pixels * self.resolution))), side))


def compound(phi: float, *, fixed_resolution: bool = False) -> Scale:
    """Return the scale that takes about 2^phi times the arithmetic; below 0 it shrinks.

    With `fixed_resolution`, for images that have no more pixels to give, width takes the resolution's share.
    """
    if fixed_resolution:
        return Scale(width=(BETA * GAMMA) ** phi, depth=ALPHA**phi)
    return Scale(width=BETA**phi, depth=ALPHA**phi, resolution=GAMMA**phi)
