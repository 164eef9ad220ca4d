"""A family that is loaded variant by variant: what it is is read at the start, its models when they are wanted."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

from router.agreement import corrected
from router.family import EVEN, Evidence, Family, Share, VariantProfile
from router.placement import Loadable, gains
from router.words import WhenCold
from service.correction import Lost
from service.crash_marker import CrashMarker
from service.lazy_preparer import LazyPreparer
from service.loading import describe_family, load_family, sample_rows
from service.memory import resident_bytes
from service.paths import PathOpener, VariantPath
from service.scoped_settings import Stages
from service.shared_tokenizers import tokenizer_bytes, tokenizer_name
from variants.evidence import read_evidence
from variants.manifest import ModelFile
from variants.preparation import Row
from variants.profiles import load_profile
from variants.repository import Repository, RepositoryError
from variants.runtimes.table import copies_of, shares_tables
from variants.session import ModelLoadError, Session, SessionOptions
from variants.tables import tables_bytes

logger = logging.getLogger("pareto.loading")

MEASURED_SHARE = 0.5
"""What a load was measured to take counts so much, what was believed before the rest: one measurement is noisy."""


_TABLE = "table:"
"""Before the SHA-256 of a lookup table: no family is called so."""


def is_table(file: str) -> bool:
    """Whether a key of `PiecewiseFamily.bytes` is that of a lookup table, which families may share."""
    return file.startswith(_TABLE)


class Opened(NamedTuple):
    """A variant that was opened and warmed, in `seconds`."""

    path: VariantPath
    seconds: float


class PiecewiseFamily:
    """One revision of a family, by default the active one, known to the scheduler by its name or an `alias`.

    Its methods take from milliseconds to seconds and are called on the loading thread. `loaded` is what serves it;
    `loaded.paths` has the variants in memory and is changed in place. Reading needs manifest and profile alone; where
    variants have no profile of this machine yet, all are opened and measured once. Raises `RepositoryError` as
    `service.loading.load_family` does.
    """

    def __init__(
        self,
        repository: Repository,
        name: str,
        options: SessionOptions,
        wanted: Sequence[str] | None,
        *,
        stages: Stages,
        cascades: bool,
        when_cold: WhenCold = WhenCold.WAIT,
        share: Share = EVEN,
        revision: str | None = None,
        alias: str | None = None,
        marker: CrashMarker | None = None,
    ) -> None:
        self._folder = repository.open(name, revision)
        self._options = options
        self._marker = marker
        self.preparer = LazyPreparer(self._folder)
        profile = load_profile(self._folder, options.threads)
        described = describe_family(self._folder, profile, wanted, self.preparer, stages=stages, cascades=cascades)
        if described is None:
            whole = load_family(
                repository,
                name,
                options,
                wanted,
                stages=stages,
                cascades=cascades,
                revision=revision,
                marker=marker,
            )
            described = replace(whole, paths={}, preparer=self.preparer)
        self.paths: dict[str, VariantPath] = {}
        family = replace(described.family, name=alias or name, when_cold=when_cold, share=share, evidence=None)
        self.refused: dict[str, str] = dict(described.refused)
        self.lost: Lost = {}
        """What its variants are believed to have lost since they were measured."""
        self.loaded = replace(described, paths=self.paths, family=family, refused=self.refused)
        self._staged = any(variant.stages != ("whole",) for variant in family.variants)
        tables = {**described.profile.variants, **described.profile.stages}
        self.bytes: dict[str, int] = {}
        """What each model is thought to take in memory, by `<family>/<its key>`; never less than on disk.

        And tokenizers, and of lookup tables exactly what they take, by names that all have which share them.
        """
        self._least: dict[str, int] = {}
        for variant in family.variants:
            names = variant.stages if self._staged and variant.stages != ("whole",) else (variant.name,)
            for table, file in zip(names, self._files(variant.name), strict=True):
                shared = self._tables(file)
                least = self._folder.size_bytes(file.path) - sum(shared.values())
                key = f"{self.name}/{file.key}"
                self._least[key] = least
                taken = tables[table].memory_bytes * copies_of(file.runtime, options.slots)
                self.bytes[key] = max(taken - sum(shared.values()), least)
                self.bytes |= shared
        self._tokenizer = tokenizer_name(self._folder)
        if self._tokenizer is not None:
            self.bytes[self._tokenizer] = tokenizer_bytes(self._folder)
        for variant in family.variants:
            if marker is not None and marker.is_doubted(*self._marked(variant.name)):
                self._try(variant.name)

    @property
    def name(self) -> str:
        """What the scheduler calls the family: its name, or the alias that it was given."""
        return self.loaded.family.name

    def family(self, without: Iterable[str] = ()) -> Family:
        """What the scheduler is to know of it: all variants, and those in memory as loaded, `without` some.

        It has what cascades need where there are some: with two rungs in memory.
        """
        whole = self.loaded.family
        held = self.paths.keys() - set(without)
        family = whole.with_loaded(index for index, variant in enumerate(whole.variants) if variant.name in held)
        return corrected(replace(family, evidence=self._evidence) if len(family.ladder) > 1 else family, self.lost)

    @property
    def believed(self) -> tuple[VariantProfile, ...]:
        """The variants as they are believed to be, whether in memory or not."""
        return corrected(self.loaded.family, self.lost).variants

    def loadable(self) -> Mapping[int, Loadable]:
        """The variants that are not refused, by index: the one that takes least memory first, then as they are.

        What a variant adds is what it is better than the better of the first one and all cheaper ones. One that is no
        better adds nothing: it is loaded where there is room to spare, and for who pins it.
        """
        variants = self.believed
        sound = [index for index, variant in enumerate(variants) if variant.name not in self.refused]
        if not sound:
            return {}
        first = min(sound, key=lambda index: (self.size(variants[index].name), index))
        added = gains({index: variants[index].quality for index in sound}, first)
        return {index: Loadable(self.keys(variants[index].name), gain) for index, gain in added.items()}

    def size(self, variant: str) -> int:
        """What a variant alone is thought to take in memory, bytes."""
        return sum(self.bytes[file] for file in self.keys(variant))

    def sizes(self, variant: int) -> dict[str, int]:
        """Its files, with what each is thought to take in memory."""
        return {file: self.bytes[file] for file in self.keys(self.loaded.family.variants[variant].name)}

    def keys(self, variant: str) -> tuple[str, ...]:
        """The files of a variant as `bytes` calls them."""
        files = self._files(variant)
        tables = dict.fromkeys(table for file in files for table in self._tables(file))
        keys = (*(f"{self.name}/{file.key}" for file in files), *tables)
        return keys if self._tokenizer is None else (*keys, self._tokenizer)

    def open(self, variant: str) -> Opened:
        """Read, check, open and warm one variant; stages that another one has in memory are shared.

        What it takes in memory is learnt from that. Raises `ModelLoadError`, `RepositoryError` for one that cannot be
        served; it is refused from then on.
        """
        started_s = time.perf_counter()
        manifest = self.loaded.manifest.variant(variant)
        try:
            self.preparer.open()
            before = _models_bytes()
            # Tables are checked when they are read, which those in memory are not again.
            files = set(self.loaded.manifest.files_of(manifest)) - self.loaded.manifest.table_files
            broken = self._folder.broken_files(files)
            if broken:
                raise RepositoryError("; ".join(f"{path}: {fault}" for path, fault in broken.items()))
            opener = PathOpener(
                self._folder,
                self.preparer,
                self._options,
                self._rows(),
                staged=self._staged,
                opened=self._sessions(),
                marker=self._marker,
            )
            path = opener.open(manifest)
            if self._marker is not None:
                self._marker.loaded(*self._marked(variant))
        except (ModelLoadError, RepositoryError) as error:
            logger.error("family %s: variant %s is refused: %s", self.name, variant, error)
            self.refused[variant] = str(error).replace(f"{self._folder.path}/", "")
            raise
        self._took(variant, _models_bytes() - before)
        return Opened(path, time.perf_counter() - started_s)

    def drop(self, variant: str) -> None:
        """Close a variant that no batch uses; stages that another one in memory shares stay open."""
        dropped = self.paths.pop(variant, ())
        shared = {id(session) for path in self.paths.values() for session in path}
        for session in dropped:
            if id(session) not in shared:
                session.close()
        if not self.paths:
            self.preparer.close()
            self.__dict__.pop("_evidence", None)

    def _try(self, variant: str) -> None:
        """Load a variant and drop it: nothing else goes on at a start, so that an end by it is no one else's."""
        # It is refused by name then.
        with suppress(ModelLoadError, RepositoryError):
            self.paths[variant] = self.open(variant).path
            self.drop(variant)

    def _marked(self, variant: str) -> tuple[str, str, str]:
        """What the marker calls a variant."""
        return self.loaded.manifest.name, self.loaded.manifest.revision, variant

    def _took(self, variant: str, gained: int) -> None:
        """Memory grew by so many bytes as the models of a variant were loaded that others in memory do not have.

        What lookup tables take is known.
        """
        held = {file for name in self.paths for file in self.keys(name)} | {self._tokenizer}
        new = [file for file in self.keys(variant) if file not in held and not is_table(file)]
        believed = sum(self.bytes[file] for file in new)
        if believed:
            # Freed memory that is used again does not show: what it takes is not believed to halve at once.
            factor = (1 - MEASURED_SHARE) + MEASURED_SHARE * min(max(gained / believed, 0.5), 4.0)
            self.bytes |= {file: max(self._least.get(file, 0), int(self.bytes[file] * factor)) for file in new}

    @cached_property
    def _evidence(self) -> Evidence | None:
        return read_evidence(self._folder, [variant.name for variant in self.loaded.family.variants])

    def _files(self, variant: str) -> tuple[ModelFile, ...]:
        manifest = self.loaded.manifest
        return manifest.path_of(manifest.variant(variant), staged=self._staged)

    def _tables(self, file: ModelFile) -> dict[str, int]:
        """The lookup tables that a model shares with others as `bytes` calls them, and what they take."""
        if not shares_tables(file.runtime):
            return {}
        return {f"{_TABLE}{t.sha256}": t.size_bytes for t in self.loaded.manifest.parts_of(file.path).tables}

    def _sessions(self) -> dict[str, Session]:
        """Those in memory, by `ModelFile.key`."""
        paths = self.paths.items()
        return {
            file.key: session for name, path in paths for file, session in zip(self._files(name), path, strict=True)
        }

    def _rows(self) -> Sequence[Row]:
        try:
            return sample_rows(self._folder, self.preparer)
        except RepositoryError:
            return ()


def _models_bytes() -> int:
    """Resident memory without lookup tables, which may be in memory for others already."""
    return resident_bytes() - tables_bytes()
