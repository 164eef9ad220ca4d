"""What the models of a revision are thought to take in memory: by their profiles first, then by loading them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from service.shared_tokenizers import tokenizer_bytes, tokenizer_name
from variants.manifest import ModelFile
from variants.profiles import FamilyProfile
from variants.repository import RevisionFolder
from variants.runtimes.table import ONNXRUNTIME, RUNTIMES, copies_of, shares_tables

MEASURED_SHARE = 0.5
"""What a load was measured to take counts so much, what was believed before the rest: one measurement is noisy."""

GRAPH_ONCE_MORE = 2.2
"""So many times its bytes a graph that stores weights takes on onnxruntime while it is opened, beside what the model
keeps: they are parsed, then packed before the parsed ones are gone (measured: 0.6 to 2.17 times, onnxruntime 1.31). How
much it is of the same graph differs from once to once, so a profile's figure may be too low."""

Slots = Mapping[str, int]
"""How many slots each device has."""

NEAR = 1.5
"""A load that took so many times what was believed, or that part of it, confirms it."""
MEASURED_TIMES = 3
"""After so many measurements, what is believed is taken to be known, whatever they said."""

_TABLE = "table:"
"""Before the SHA-256 of a lookup table: no family is called so."""


def is_table(file: str) -> bool:
    """Whether a key of `ModelSizes.bytes` is that of a lookup table, which families may share."""
    return file.startswith(_TABLE)


class ModelSizes:
    """Of one revision, which is called `family`.

    `bytes` has what each model takes that is open, by `<family>/<its key>`; never less than on disk, and of one that
    grows with the batches it gets, never less than it was measured to take with all of them. And tokenizers, and of
    lookup tables exactly what they take, by names that all have which share them. `opening` has, by the same keys, what
    opening a model takes for a moment beside what it keeps, on one device after the other.
    """

    def __init__(self, folder: RevisionFolder, family: str) -> None:
        self.bytes: dict[str, int] = {}
        self.opening: dict[str, int] = {}
        self._folder = folder
        self._family = family
        self.revised = 0
        """So often was what is believed changed."""
        self._least: dict[str, int] = {}
        self._measured: Counter[str] = Counter()
        self.tokenizer = tokenizer_name(folder)
        """What `bytes` calls the tokenizer; None where there is none."""
        if self.tokenizer is not None:
            self.bytes[self.tokenizer] = tokenizer_bytes(folder)

    def expect_all(
        self, files: Iterable[tuple[str, ModelFile]], profiles: Mapping[str, FamilyProfile | None], slots: Slots
    ) -> None:
        """Believe what the profiles, by device, say of these files, each with its name there, and of the tokenizer."""
        for table, file in files:
            taken = [profiled_bytes(profile, table, file, slots[device]) for device, profile in profiles.items()]
            self.expect(file, taken, opening_bytes(profiles.values(), table))
        measured = [one.tokenizer_bytes for one in profiles.values() if one and one.tokenizer_bytes is not None]
        if self.tokenizer is not None and measured:
            self.bytes[self.tokenizer] = tokenizer_bytes(self._folder, max(measured))

    def expect(self, file: ModelFile, measured: Sequence[int], opening: int | None = None) -> None:
        """Believe what was measured of a model, tables included: bytes, once for each device that it is opened on.

        `opening` is what was measured of opening it, beside that, at the most; None where it was not.
        """
        tables = self._tables(file)
        own = self._folder.size_bytes(file.path) - sum(tables.values())
        key = self._key(file)
        self.bytes[key] = sum(max(taken - sum(tables.values()), own) for taken in measured)
        # What grows with the batches that come has more to take than a load can show.
        grows = file.runtime in RUNTIMES and RUNTIMES[file.runtime].grows
        self._least[key] = self.bytes[key] if grows else len(measured) * own
        self.bytes |= tables
        graph = self._folder.file_bytes(file.path) if file.runtime == ONNXRUNTIME else 0
        # Not measured, all that it keeps is thought to be there twice. A lookup table is read into its place.
        known = max(self.bytes[key] // len(measured), own) if opening is None else opening
        self.opening[key] = max(known, int(GRAPH_ONCE_MORE * graph))

    def keys(self, files: Iterable[ModelFile]) -> tuple[str, ...]:
        """What a variant of these files takes, as `bytes` calls it."""
        files = tuple(files)
        tables = dict.fromkeys(table for file in files for table in self._tables(file))
        keys = (*map(self._key, files), *tables)
        return keys if self.tokenizer is None else (*keys, self.tokenizer)

    def took(self, keys: Iterable[str], held: Collection[str], gained: int) -> None:
        """Memory grew by so many bytes as a variant of these `keys` was loaded beside those that were `held`.

        What lookup tables take is known.
        """
        new = self._new(keys, held)
        believed = sum(self.bytes[key] for key in new)
        # One measurement alone may have been taken beside batches.
        is_near = believed / NEAR <= gained <= believed * NEAR
        self._measured.update(dict.fromkeys(new, MEASURED_TIMES if is_near else 1))
        if believed:
            # Freed memory that is used again does not show: what it takes is not believed to halve at once.
            factor = (1 - MEASURED_SHARE) + MEASURED_SHARE * min(max(gained / believed, 0.5), 4.0)
            self.bytes |= {key: max(self._least.get(key, 0), int(self.bytes[key] * factor)) for key in new}
            self.revised += 1

    def are_seen(self, keys: Iterable[str], held: Collection[str]) -> bool:
        """Whether it is known by measured loads what a variant of these `keys` adds to those that are `held`."""
        return all(self._measured[key] >= MEASURED_TIMES for key in self._new(keys, held))

    def _new(self, keys: Iterable[str], held: Collection[str]) -> list[str]:
        return [key for key in keys if key not in held and key != self.tokenizer and not is_table(key)]

    def _key(self, file: ModelFile) -> str:
        return f"{self._family}/{file.key}"

    def _tables(self, file: ModelFile) -> dict[str, int]:
        """The lookup tables that a model shares with others as `bytes` calls them, and what they take."""
        if not shares_tables(file.runtime):
            return {}
        return {f"{_TABLE}{t.sha256}": t.size_bytes for t in self._folder.manifest.parts_of(file.path).tables}


def opening_bytes(profiles: Iterable[FamilyProfile | None], table: str) -> int | None:
    """The most that opening a model takes by these profiles, of that name there, bytes; None where one does not say."""
    most = 0
    for profile in profiles:
        found = None if profile is None else {**profile.variants, **profile.stages}.get(table)
        if found is None or found.opening_bytes is None:
            return None
        most = max(most, found.opening_bytes)
    return most


def profiled_bytes(profile: FamilyProfile | None, table: str, file: ModelFile, slots: int) -> int:
    """What a model, of that name in the profile, takes with so many slots, bytes; 0 where nobody knows."""
    tables = {} if profile is None else {**profile.variants, **profile.stages}
    taken = tables[table].memory_bytes if table in tables else 0
    return taken * copies_of(file.runtime, slots)
