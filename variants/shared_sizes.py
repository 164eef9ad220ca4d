"""What variants take that share parts: each by itself, and all together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from variants.manifest import FamilyManifest
from variants.runtimes.table import shares_tables
from variants.shared_parts import LookupTable


def own_bytes(manifest: FamilyManifest) -> Mapping[str, int]:
    """Return by variant what its graph takes on the disk that no other graph refers to, stages included.

    `VariantManifest.size_bytes` has the whole. Of a published revision only.
    """
    # The same file on two runtimes is one graph.
    graphs = {*(variant.model_file for variant in manifest.variants), *(stage.file for stage in manifest.stages)}
    files = {graph: {graph, *manifest.parts_of(graph).files} for graph in graphs}
    users = Counter(file for needed in files.values() for file in needed)
    sizes = {entry.path: entry.size_bytes for entry in manifest.files}
    return {
        variant.name: sum(sizes[file] for file in files[variant.model_file] if users[file] == 1)
        for variant in manifest.variants
    }


def repeated_table_bytes(manifest: FamilyManifest, variants: Iterable[str]) -> int:
    """Return how much more memory the lookup tables of these variants would take, were they not held once."""
    tables = [table for variant in variants for table in _tables(manifest, variant)]
    return sum(table.size_bytes for table in tables) - sum({t.sha256: t.size_bytes for t in tables}.values())


def loaded_bytes(manifest: FamilyManifest, variants: Iterable[str], times: int = 1) -> int:
    """Return what the files of these variants take in memory, opened so many `times`; lookup tables are held once."""
    variants = list(variants)
    tables = [table for variant in variants for table in _tables(manifest, variant)]
    own_bytes = sum(manifest.variant(variant).size_bytes for variant in variants)
    own_bytes -= sum(table.size_bytes for table in tables)
    return times * own_bytes + sum({table.sha256: table.size_bytes for table in tables}.values())


def _tables(manifest: FamilyManifest, name: str) -> Sequence[LookupTable]:
    """Those that a variant shares with other sessions."""
    variant = manifest.variant(name)
    return manifest.parts_of(variant.model_file).tables if shares_tables(variant.runtime) else ()
