"""Which variants a family is served with where nobody names any, on a machine that may lack runtimes."""

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


def _here(manifest: FamilyManifest, variant: VariantManifest) -> VariantManifest:
    if variant.parity is None or variant.runtime == ONNXRUNTIME:
        return variant
    return manifest.variant(variant.parity.reference) if lack_of(variant.runtime) else variant
