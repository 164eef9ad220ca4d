"""Which variants are served unless someone says otherwise.

On the frontier are those that none other beats in accuracy, latency and size together. Loaded by default are those of
them whose accuracy is worth its price: a variant is left on disk where a loaded one is faster and smaller and, on the
same test rows, not clearly less accurate. Otherwise a tenth of a point that is noise would cost every patient request
several times the compute.

A variant whose answers depend on the rows that share its batch, by more than the family allows, does not compete while
there are others. A counterpart, which was trained for comparison with an exit, never does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from variants.frontier import ParetoPoint, frontier
from variants.manifest import VariantManifest
from variants.paired import Scores, paired_difference

_DOMINATED = "dominated by"
_NOT_BETTER = "no more than one standard error better than"
_COUNTERPART = "trained for comparison with"
_DEPENDS = "its answers depend on the rows that share the batch"
_SAID = (_DOMINATED, _NOT_BETTER, _COUNTERPART, _DEPENDS)
"""How notes begin that say what a variant is among others."""


def select(
    variants: Sequence[VariantManifest],
    latency_s: Mapping[str, float],
    scores: Mapping[str, Scores],
    batch_tolerance: float,
) -> tuple[VariantManifest, ...]:
    """Return the variants with `on_frontier`, `load_by_default` and a note on why not set.

    `latency_s` are seconds of one row; `scores` [n] are those of the test rows under each variant. `batch_tolerance` is
    by how much a probability may move with the other rows of a batch (`FamilyManifest.batch_tolerance`).
    """
    points = {variant.name: _point(variant, latency_s[variant.name]) for variant in variants}
    left_out = not_competing(variants, batch_tolerance)
    result = frontier([point for name, point in points.items() if name not in left_out])
    notes = dict(left_out)
    notes |= {name: f"{_DOMINATED} {by}" for name, by in result.dominated.items()}
    loaded: list[ParetoPoint] = []
    for point in (points[name] for name in result.on):
        rival = next((other for other in reversed(loaded) if _is_no_worse(other, point, scores)), None)
        if rival is None:
            loaded.append(point)
        else:
            notes[point.name] = f"{_NOT_BETTER} {rival.name}, which is faster and smaller"
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


def own_notes(variant: VariantManifest) -> str:
    """Return what is said of a variant beside what `select` said of it among others."""
    return "; ".join(note for note in variant.notes.split("; ") if note and not note.startswith(_SAID))


def not_competing(variants: Sequence[VariantManifest], batch_tolerance: float) -> dict[str, str]:
    """Return by name the variants that compete with none, and why; for the tolerance see `select`."""
    left_out = {variant.name: f"{_COUNTERPART} {variant.counterpart}" for variant in variants if variant.counterpart}
    others = [variant for variant in variants if variant.name not in left_out]
    moving = [variant for variant in others if not variant.invariance.within(batch_tolerance)]
    if len(moving) < len(others):
        left_out |= {variant.name: f"{_DEPENDS}: {_how_far(variant, batch_tolerance)}" for variant in moving}
    return left_out


def _how_far(variant: VariantManifest, batch_tolerance: float) -> str:
    found = variant.invariance
    if found.label_flips:
        return f"{100 * found.label_flips:.1f} % of labels change"
    return f"probabilities move by {found.max_probability_delta:.2g}, more than {batch_tolerance:g}"


def _is_no_worse(cheaper: ParetoPoint, point: ParetoPoint, scores: Mapping[str, Scores]) -> bool:
    if cheaper.latency_s > point.latency_s or cheaper.size_bytes > point.size_bytes:
        return False
    difference, error = paired_difference(scores[point.name], scores[cheaper.name])
    return difference <= error


def _point(variant: VariantManifest, latency_s: float) -> ParetoPoint:
    return ParetoPoint(
        name=variant.name,
        quality=variant.quality.value,
        latency_s=latency_s,
        size_bytes=variant.size_bytes,
        standard_error=variant.quality.standard_error,
    )
