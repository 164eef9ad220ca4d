"""Which variants are served unless someone says otherwise.

On the frontier are those that none other beats in accuracy, latency and size together. Loaded by default are those of
them whose accuracy is worth its price: a variant is left on disk where a loaded one is faster and smaller and, on the
same test rows, not clearly less accurate. Otherwise a tenth of a point that is noise would cost every patient request
several times the compute.

A variant whose answers depend on the rows that share its batch does not compete while there are others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from variants.frontier import ParetoPoint, frontier
from variants.manifest import VariantManifest


def paired_difference(better: NDArray[np.bool_], worse: NDArray[np.bool_]) -> tuple[float, float]:
    """Return how much more often one variant is right than another on the same rows, and that difference's error.

    Only rows on which they differ carry noise, which makes the standard error much smaller than that of two
    independent accuracies; it is that of the difference under the hypothesis that there is none (McNemar, 1947).
    """
    gained, lost = int((better & ~worse).sum()), int((worse & ~better).sum())
    return (gained - lost) / len(better), math.sqrt(gained + lost) / len(better)


def select(
    variants: Sequence[VariantManifest], latency_s: Mapping[str, float], correct: Mapping[str, NDArray[np.bool_]]
) -> tuple[VariantManifest, ...]:
    """Return the variants with `on_frontier`, `load_by_default` and a note on why not set.

    `latency_s` are seconds of one row; `correct` bool [n] says which test rows each variant answered right.
    """
    points = {variant.name: _point(variant, latency_s[variant.name]) for variant in variants}
    competing = [variant.name for variant in variants if variant.invariance.invariant] or list(points)
    result = frontier([points[name] for name in competing])
    notes = dict.fromkeys(points.keys() - set(competing), "its answers depend on the rows that share the batch")
    notes |= {name: f"dominated by {by}" for name, by in result.dominated.items()}
    loaded: list[ParetoPoint] = []
    for point in (points[name] for name in result.on):
        rival = next((other for other in reversed(loaded) if _is_no_worse(other, point, correct)), None)
        if rival is None:
            loaded.append(point)
        else:
            notes[point.name] = f"no more than one standard error better than {rival.name}, which is faster and smaller"
    names = {point.name for point in loaded}
    return tuple(
        variant.model_copy(
            update={
                "on_frontier": variant.name in result.on,
                "load_by_default": variant.name in names,
                "notes": "; ".join(filter(None, (variant.notes, notes.get(variant.name)))),
            }
        )
        for variant in variants
    )


def _is_no_worse(cheaper: ParetoPoint, point: ParetoPoint, correct: Mapping[str, NDArray[np.bool_]]) -> bool:
    if cheaper.latency_s > point.latency_s or cheaper.size_bytes > point.size_bytes:
        return False
    difference, error = paired_difference(correct[point.name], correct[cheaper.name])
    return difference <= error


def _point(variant: VariantManifest, latency_s: float) -> ParetoPoint:
    return ParetoPoint(
        name=variant.name,
        quality=variant.quality.value,
        latency_s=latency_s,
        size_bytes=variant.size_bytes,
        standard_error=variant.quality.standard_error,
    )
