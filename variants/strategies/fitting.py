"""The largest architecture of one kind whose measured footprint stays within a limit.

Latency does not depend on the values of the weights, so untrained networks are measured.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from variants.architectures.image import ImageArchitecture
from variants.architectures.scale import Scale
from variants.architectures.trained import Trainer
from variants.recipes.artifact import RecipeError
from variants.strategies.bench import Bench, Footprint

WIDTHS = (0.125, 0.1875, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
RESOLUTIONS = (1.0, 0.5)


def largest_within(
    architecture: ImageArchitecture,
    share: float,
    footprint: Footprint,
    trainer: Trainer,
    bench: Bench,
    widths: Sequence[float] = WIDTHS,
    resolutions: Sequence[float] = RESOLUTIONS,
) -> ImageArchitecture:
    """Return the scaled architecture with the most weights that costs at most `share` of what the whole one does.

    `share` lies in (0, 1]. Of architectures that are equally quick, the wider one on fewer pixels has more weights, and
    for small images learns more. Raises `RecipeError` where even the smallest costs more.
    """
    scales = [Scale(width=width, resolution=resolution) for width, resolution in itertools.product(widths, resolutions)]
    sizes = dict.fromkeys([architecture, *map(architecture.scaled, scales)])
    models = {str(size): trainer.untrained(str(size), size, seed=0) for size in sizes}
    costs = bench.costs(models)
    limit = share * costs[str(architecture)].of(footprint)
    within = [size for size in sizes if costs[str(size)].of(footprint) <= limit]
    if not within:
        least = min(cost.of(footprint) for cost in costs.values()) / costs[str(architecture)].of(footprint)
        raise RecipeError(f"no smaller network has {share:.3g} of the {footprint}; the least is {least:.3g}")
    return max(within, key=lambda size: models[str(size)].parameters)
