"""Which runtime is fastest for which variant and batch, by a machine's profile. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from variants.manifest import FamilyManifest, VariantManifest
from variants.profiles import FamilyProfile


@dataclass(frozen=True, slots=True)
class Win:
    """The fastest of a variant's runtimes for batches of so many rows.

    `ratio` is how many times as long onnxruntime takes: 1 where it wins itself.
    """

    batch: int
    runtime: str
    ratio: float


@dataclass(frozen=True, slots=True)
class Contest:
    """One variant and all its ports. `ratios` has by runtime what onnxruntime takes over what that takes, by batch."""

    variant: str
    ratios: Mapping[str, Mapping[int, float]]

    @property
    def wins(self) -> tuple[Win, ...]:
        """The winner for each batch that all were timed with, ascending."""
        shared = set.intersection(*(set(by_batch) for by_batch in self.ratios.values()))
        found = []
        for batch in sorted(shared):
            runtime, ratio = max(
                ((runtime, by_batch[batch]) for runtime, by_batch in self.ratios.items()), key=lambda entry: entry[1]
            )
            found.append(Win(batch, runtime, ratio))
        return tuple(found)


def contests(manifest: FamilyManifest, profile: FamilyProfile) -> tuple[Contest, ...]:
    """Return one contest for each variant that has ports, in the manifest's order; rows of the middle size class.

    Variants that the profile lacks do not take part.
    """
    ports: dict[str, list[VariantManifest]] = {}
    for variant in manifest.variants:
        if variant.parity is not None and variant.name in profile.variants:
            ports.setdefault(variant.parity.reference, []).append(variant)
    return tuple(
        Contest(variant.name, {one.runtime: _ratios(profile, variant, one) for one in (variant, *ports[variant.name])})
        for variant in manifest.variants
        if variant.name in ports and variant.name in profile.variants
    )


def gain(runtime: str, manifest: FamilyManifest, profile: FamilyProfile) -> str:
    """Say in a few words what a runtime gained over onnxruntime for a family; empty where it was not timed."""
    timed = [contest for contest in contests(manifest, profile) if runtime in contest.ratios]
    if not timed:
        return ""
    cells = [(ratio, contest.variant, batch) for contest in timed for batch, ratio in contest.ratios[runtime].items()]
    ratio, variant, batch = max(cells)
    quicker = sum(ratio > 1.0 for ratio, _, _ in cells)
    best = f", most {variant} at batch {batch}: {ratio:.1f} times as fast as onnxruntime" if quicker else ""
    return f"{manifest.name}: faster in {quicker} of {len(cells)} cases{best}"


def _ratios(profile: FamilyProfile, reference: VariantManifest, port: VariantManifest) -> dict[int, float]:
    def by_batch(name: str) -> dict[int, float]:
        table = profile.variants[name]
        return dict(zip(table.batches, table.median_s[len(table.median_s) // 2], strict=True))

    slow, fast = by_batch(reference.name), by_batch(port.name)
    return {batch: slow[batch] / fast[batch] for batch in slow if batch in fast}
