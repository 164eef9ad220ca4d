"""What it costs that variants are exits of one network, rather than networks of their own.

Two prices: an exit that is served as a chain of stages takes a little longer than its graph in one piece; and a network
trained to be good at every exit may be worse at each than one trained for that depth alone. The second is known where a
family brings separately trained counterparts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from variants.manifest import FamilyManifest, VariantManifest
from variants.paired import Comparison, compare
from variants.profiles import FamilyProfile
from variants.scores import Scores


@dataclass(frozen=True, slots=True)
class Exit:
    """One exit of a chain: seconds of one row of the middle size class, whole and as stages one after another.

    `alone` is the separately trained counterpart, `lost` how much better that is on the same rows.
    """

    variant: VariantManifest
    whole_s: float
    staged_s: float | None
    alone: VariantManifest | None
    lost: Comparison | None


def exits(manifest: FamilyManifest, profile: FamilyProfile, scores: Scores | None) -> tuple[Exit, ...]:
    """Return the exits of chains that several variants share, in the manifest's order; none where there is no chain."""
    chains = [variant.stages for variant in manifest.variants if variant.stages]
    alone = {variant.counterpart: variant for variant in manifest.variants if variant.counterpart}
    return tuple(
        _exit(variant, profile, alone.get(variant.name), scores.of if scores else {})
        for variant in manifest.variants
        if variant.name in profile.variants
        and variant.stages
        and sum(chain[:1] == variant.stages[:1] for chain in chains) > 1
    )


def _exit(
    variant: VariantManifest,
    profile: FamilyProfile,
    alone: VariantManifest | None,
    scores: Mapping[str, NDArray[np.float64]],
) -> Exit:
    def row_s(name: str, stages: bool = False) -> float | None:
        table = (profile.stages if stages else profile.variants).get(name)
        return table.median_s[len(table.median_s) // 2][0] if table else None

    stages = [row_s(stage, stages=True) for stage in variant.stages]
    known = [seconds for seconds in stages if seconds is not None]
    comparable = alone is not None and alone.name in scores and variant.name in scores
    return Exit(
        variant=variant,
        whole_s=row_s(variant.name) or 0.0,
        staged_s=sum(known) if len(known) == len(stages) else None,
        alone=alone,
        lost=compare(scores[alone.name], scores[variant.name]) if alone is not None and comparable else None,
    )
