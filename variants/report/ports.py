"""Variants on other runtimes beside the ones that they are ports of: are they the same, and which is faster?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from variants.manifest import FamilyManifest, VariantManifest
from variants.measurements import Parity
from variants.paired import Comparison
from variants.profiles import FamilyProfile
from variants.runtimes.contest import Contest, contests


@dataclass(frozen=True, slots=True)
class PortLine:
    """One port. `quality` compares its answers with those of its reference, None where rows are not stored."""

    variant: VariantManifest
    parity: Parity
    quality: Comparison | None


@dataclass(frozen=True, slots=True)
class Ports:
    """All ports of a revision, and the contests between runtimes."""

    lines: tuple[PortLine, ...]
    contests: tuple[Contest, ...]

    @property
    def batches(self) -> list[int]:
        """The batches of the contests, ascending."""
        return sorted({win.batch for contest in self.contests for win in contest.wins})

    def ratio(self, line: PortLine, batch: int) -> float | None:
        """How many times as long onnxruntime takes for a batch as the port; None where one of them was not timed."""
        for contest in self.contests:
            if contest.variant == line.parity.reference:
                return contest.ratios[line.variant.runtime].get(batch)
        return None


def ports_of(
    manifest: FamilyManifest, profile: FamilyProfile, comparisons: Mapping[tuple[str, str], Comparison]
) -> Ports:
    """Gather the profiled ports of a revision; `comparisons` are by pairs of names, better first or not."""
    lines = tuple(
        PortLine(variant, variant.parity, comparisons.get((variant.name, variant.parity.reference)))
        for variant in manifest.variants
        if variant.parity is not None and variant.name in profile.variants
    )
    return Ports(lines, contests(manifest, profile))
