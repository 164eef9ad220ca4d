"""Large batches in pieces: what a model takes while it runs grows with all that it is given at once.

A batch is measured in cells: its rows times the tokens that each is padded to, or its rows where they have none. Where
the largest batch takes more memory than `MOST_BYTES`, it is run in pieces that take about that, one after the other.
Answers are those of smaller batches. On the CPU that costs no time where a batch takes as much as that: its activations
are larger than a processor's own caches, and the memory for them is got from the system and zeroed for each batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from variants.manifest import FamilyManifest
from variants.preparation import ATTENTION_MASK
from variants.profiles import FamilyProfile, Table, VariantTable
from variants.runtimes.contract import Model, Tensors

MOST_BYTES = 8_000_000
"""What a batch may take at once, beside its model."""


class InPieces:
    """A model that runs at most so many `cells` at once, and never less than a row. See `runtimes.contract.Model`."""

    __slots__ = ("_cells", "_model", "input_names", "output_names")

    def __init__(self, model: Model, cells: int) -> None:
        self.input_names = model.input_names
        self.output_names = model.output_names
        self._model = model
        self._cells = cells

    def run(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        """Return what the model gives for all rows, in order. Raises what it raises for a piece."""
        mask = feeds.get(ATTENTION_MASK)
        rows = len(next(iter(feeds.values())) if mask is None else mask)
        piece = rows_at_once(rows, 1 if mask is None else mask.shape[1], self._cells)
        if piece >= rows:
            return self._model.run(feeds)
        parts = [
            self._model.run({name: array[start : start + piece] for name, array in feeds.items()})
            for start in range(0, rows, piece)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def close(self) -> None:
        """See `Model`."""
        self._model.close()


def rows_at_once(rows: int, tokens: int, cells: int) -> int:
    """Return the rows of each piece but the last of a batch of at least one row: as even as may be."""
    most = max(1, cells // max(1, tokens))
    return math.ceil(rows / math.ceil(rows / most)) if rows else 0


def cells_at_once(manifest: FamilyManifest, profile: FamilyProfile) -> dict[str, int]:
    """Return how many cells may run at once of each variant and stage whose largest batches take too much.

    By their names; a stage takes no more than the whole graphs that begin with it or hold it. What the profile does
    not know runs whole.
    """
    largest = manifest.max_batch * manifest.sizes[-1]
    taken = {name: batch_bytes(profile, name) for name in profile.variants}
    for stage in profile.stages:
        taken[stage] = max((taken.get(v.name, 0) for v in manifest.variants if stage in v.stages), default=0)
    return {name: int(largest * MOST_BYTES / size) for name, size in taken.items() if size > MOST_BYTES}


def most_batch_bytes(manifest: FamilyManifest, profile: FamilyProfile | None) -> int:
    """Return what a batch of any variant takes at once at the most; `MOST_BYTES` where the profile does not say."""
    if profile is None:
        return MOST_BYTES
    most = 0
    for name, table in profile.variants.items():
        taken = batch_bytes(profile, name)
        if not taken and table.batch_bytes is None:
            taken = MOST_BYTES
        # No piece is smaller than a row.
        most = max(most, min(taken, max(MOST_BYTES, math.ceil(taken / manifest.max_batch))))
    return most


def batch_bytes(profile: FamilyProfile, variant: str) -> int:
    """Return what the largest batch of a variant takes; 0 where nobody knows. Older profiles have it as a footprint."""
    known = profile.variants[variant].batch_bytes
    if known is not None:
        return known
    footprint = profile.footprints.get(variant)
    return 0 if footprint is None else max(0, footprint.peak_bytes - footprint.loaded_bytes)


def cells_of_files(manifest: FamilyManifest, profile: FamilyProfile) -> dict[str, int]:
    """Return what `cells_at_once` does, by `ModelFile.key`."""
    cells = cells_at_once(manifest, profile)
    files = {v.name: v.model for v in manifest.variants} | {stage.name: stage.model for stage in manifest.stages}
    return {files[name].key: size for name, size in cells.items() if name in files}


def profile_in_pieces(manifest: FamilyManifest, profile: FamilyProfile) -> FamilyProfile:
    """Return the profile with what runs in pieces taking as long as these, in the tail one of them longer."""
    cells = cells_at_once(manifest, profile)

    def of_pieces(tables: Mapping[str, VariantTable]) -> dict[str, VariantTable]:
        return {
            name: _table_in_pieces(table, manifest.sizes, cells[name]) if name in cells else table
            for name, table in tables.items()
        }

    return profile.model_copy(update={"variants": of_pieces(profile.variants), "stages": of_pieces(profile.stages)})


def _table_in_pieces(table: VariantTable, sizes: Sequence[int], cells: int) -> VariantTable:
    batches = np.array(table.batches)
    medians: list[tuple[float, ...]] = []
    tails: list[tuple[float, ...]] = []
    for tokens, median_s, tail_s in zip(sizes, table.median_s, table.tail_s, strict=True):
        rows = np.array([rows_at_once(batch, tokens, cells) for batch in table.batches])
        # Of pieces that are no batch of the profile, between those that are.
        piece_s, slow_s = np.interp(rows, batches, median_s), np.interp(rows, batches, tail_s)
        others = batches / rows - 1.0
        medians.append(tuple((piece_s * (1.0 + others)).tolist()))
        tails.append(tuple((slow_s + piece_s * others).tolist()))
    median: Table = tuple(medians)
    return table.model_copy(update={"median_s": median, "tail_s": tuple(tails), "p99_s": None})
