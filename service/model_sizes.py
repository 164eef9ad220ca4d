"""What the models of a revision are thought to take in memory: by their profiles first, then by loading them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from service.shared_tokenizers import tokenizer_bytes, tokenizer_name
from variants.manifest import ModelFile
from variants.profiles import FamilyProfile
from variants.repository import RevisionFolder
from variants.runtimes.table import RUNTIMES, copies_of, shares_tables

MEASURED_SHARE = 0.5
"""What a load was measured to take counts so much, what was believed before the rest: one measurement is noisy."""

_TABLE = "table:"
"""Before the SHA-256 of a lookup table: no family is called so."""


def is_table(file: str) -> bool:
    """Whether a key of `ModelSizes.bytes` is that of a lookup table, which families may share."""
    return file.startswith(_TABLE)


class ModelSizes:
    """Of one revision, which is called `family`.

    `bytes` has what each model takes that is open, by `<family>/<its key>`; never less than on disk, and of one that
    grows with the batches it gets, never less than it was measured to take with all of them. And tokenizers, and of
    lookup tables exactly what they take, by names that all have which share them.
    """

    def __init__(self, folder: RevisionFolder, family: str) -> None:
        self.bytes: dict[str, int] = {}
        self._folder = folder
        self._family = family
        self._least: dict[str, int] = {}
        self._tokenizer = tokenizer_name(folder)
        if self._tokenizer is not None:
            self.bytes[self._tokenizer] = tokenizer_bytes(folder)

    def expect(self, file: ModelFile, measured: Sequence[int]) -> None:
        """Believe what was measured of a model, tables included: bytes, once for each device that it is opened on."""
        tables = self._tables(file)
        own = self._folder.size_bytes(file.path) - sum(tables.values())
        key = self._key(file)
        self.bytes[key] = sum(max(taken - sum(tables.values()), own) for taken in measured)
        # What grows with the batches that come has more to take than a load can show.
        grows = file.runtime in RUNTIMES and RUNTIMES[file.runtime].grows
        self._least[key] = self.bytes[key] if grows else len(measured) * own
        self.bytes |= tables

    def keys(self, files: Iterable[ModelFile]) -> tuple[str, ...]:
        """What a variant of these files takes, as `bytes` calls it."""
        files = tuple(files)
        tables = dict.fromkeys(table for file in files for table in self._tables(file))
        keys = (*map(self._key, files), *tables)
        return keys if self._tokenizer is None else (*keys, self._tokenizer)

    def took(self, keys: Iterable[str], held: Collection[str], gained: int) -> None:
        """Memory grew by so many bytes as a variant of these `keys` was loaded beside those that were `held`.

        What lookup tables take is known.
        """
        new = [key for key in keys if key not in held and key != self._tokenizer and not is_table(key)]
        believed = sum(self.bytes[key] for key in new)
        if believed:
            # Freed memory that is used again does not show: what it takes is not believed to halve at once.
            factor = (1 - MEASURED_SHARE) + MEASURED_SHARE * min(max(gained / believed, 0.5), 4.0)
            self.bytes |= {key: max(self._least.get(key, 0), int(self.bytes[key] * factor)) for key in new}

    def _key(self, file: ModelFile) -> str:
        return f"{self._family}/{file.key}"

    def _tables(self, file: ModelFile) -> dict[str, int]:
        """The lookup tables that a model shares with others as `bytes` calls them, and what they take."""
        if not shares_tables(file.runtime):
            return {}
        return {f"{_TABLE}{t.sha256}": t.size_bytes for t in self._folder.manifest.parts_of(file.path).tables}


def profiled_bytes(profile: FamilyProfile | None, table: str, file: ModelFile, slots: int) -> int:
    """What a model, of that name in the profile, takes with so many slots, bytes; 0 where nobody knows."""
    tables = {} if profile is None else {**profile.variants, **profile.stages}
    taken = tables[table].memory_bytes if table in tables else 0
    return taken * copies_of(file.runtime, slots)
