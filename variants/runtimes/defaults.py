"""Which variants a family has on a machine that may lack runtimes, and with which it is served by default."""

from __future__ import annotations

from variants.manifest import FamilyManifest, VariantManifest
from variants.runtimes.table import ONNXRUNTIME, lack_of


def loaded_by_default(manifest: FamilyManifest) -> list[VariantManifest]:
    """Return the variants that the revision loads by default, or all where it names none.

    A port whose runtime cannot be used here gives way to the variant that it is a port of.
    """
    wanted = [one for one in manifest.variants if one.load_by_default] or list(manifest.variants)
    chosen = {(_here(manifest, one)).name for one in wanted}
    return [one for one in manifest.variants if one.name in chosen]


def unusable(manifest: FamilyManifest) -> dict[str, str]:
    """Return by name the variants whose runtime cannot be used here, and why, in one line."""
    lacks = {runtime: lack_of(runtime) for runtime in {variant.runtime for variant in manifest.variants}}
    return {variant.name: lacks[variant.runtime] for variant in manifest.variants if lacks[variant.runtime]}


def _here(manifest: FamilyManifest, variant: VariantManifest) -> VariantManifest:
    if variant.parity is None or variant.runtime == ONNXRUNTIME:
        return variant
    return manifest.variant(variant.parity.reference) if lack_of(variant.runtime) else variant
