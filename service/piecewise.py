"""A family that is loaded variant by variant: what it is is read at the start, its models when they are wanted."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
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
from service.footprint import OWN, Footprint
from service.held_paths import HeldPaths, OnDevices
from service.lazy_preparer import LazyPreparer
from service.loaded_family import LoadedFamily
from service.loading import Device, describe_family, load_family, sample_rows
from service.log_words import REFUSED
from service.model_sizes import ModelSizes, is_table
from service.paths import KilledError, NotNowError
from service.scoped_settings import Stages
from service.servable import servable
from variants.evidence import read_evidence
from variants.manifest import ModelFile, VariantManifest
from variants.pieces import cells_of_files, most_batch_bytes, profile_in_pieces
from variants.preparation import Row
from variants.profiles import FamilyProfile, load_profile
from variants.repository import Repository, RepositoryError
from variants.session import ModelLoadError, SessionOptions

logger = logging.getLogger("pareto.loading")

KILLED_TIMES = 3
"""Where a load was ended so often in a row by who kills processes, memory is taken not to suffice for that variant."""


class Opened(NamedTuple):
    """A variant that was opened and warmed, in `seconds`; `paths` has it by device."""

    paths: OnDevices
    seconds: float


class PiecewiseFamily:
    """One revision of a family, by default the active one, known to the scheduler by its name or an `alias`.

    A variant is in memory on all of the `devices` or on none; without any it is opened with `options`, as the
    `footprint` opens models. `batch_bytes` is what a batch takes at the most beside its model.
    Its methods take from milliseconds to seconds and are called on the loading thread, but for `hold`. `loaded` is what
    serves it; `loaded.paths` and `loaded.elsewhere` have the variants in memory and are changed in place. Reading needs
    manifest and profiles alone; where variants lack one of this machine for a device, all are opened and measured once.
    Raises `RepositoryError` as `service.loading.load_family` does.
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
        footprint: Footprint = OWN,
        devices: Sequence[Device] = (),
    ) -> None:
        self._folder = repository.open(name, revision)
        self._devices = tuple(devices) or (Device("", options),)
        self.preparer = LazyPreparer(self._folder)
        self._footprint = footprint
        manifest = self._folder.manifest
        wanted, lacking = servable(self._folder, wanted, footprint)
        first, *others = [device.name for device in self._devices]
        profiles = self._profiles()

        def describe(wanted: Sequence[str] | None) -> LoadedFamily | None:
            timed = {device: profile and profile_in_pieces(manifest, profile) for device, profile in profiles.items()}
            return describe_family(
                self._folder,
                timed[first],
                wanted,
                self.preparer,
                stages=stages,
                cascades=cascades,
                elsewhere={name: timed[name] for name in others},
            )

        described = describe(wanted)
        if described is None:
            loaded = load_family(
                repository,
                name,
                options,
                wanted,
                stages=stages,
                cascades=cascades,
                revision=revision,
                open_one=footprint.open_one,
                marker=marker,
                devices=devices,
            )
            # Where they cannot be stored, only the first device's is there: on others models take about as much.
            profiles = {device: stored or loaded.profile for device, stored in self._profiles().items()}
            profiles[first] = loaded.profile
            sound = [variant.name for variant in loaded.family.variants]
            described = replace(describe(sound) or loaded, refused=loaded.refused)
        family = replace(described.family, name=alias or name, when_cold=when_cold, share=share, evidence=None)
        self._staged = any(variant.stages != ("whole",) for variant in family.variants)
        cells = {device: cells_of_files(manifest, profile) for device, profile in profiles.items() if profile}
        self._held = HeldPaths(
            self._folder, self._devices, footprint.open_one, marker, staged=self._staged, cells=cells
        )
        self.paths = self._held.paths[first]
        self.refused: dict[str, str] = {**described.refused, **lacking}
        self._killed: Counter[str] = Counter()
        self.lost: Lost = {}
        """What its variants are believed to have lost since they were measured."""
        self.loaded: LoadedFamily = replace(
            described,
            preparer=self.preparer,
            paths=self.paths,
            elsewhere={device: self._held.paths[device] for device in others},
            family=family,
            refused=self.refused,
        )
        self.batch_bytes = max(most_batch_bytes(manifest, profile) for profile in profiles.values())
        self._sizes = ModelSizes(self._folder, self.name)
        self._keys: dict[str, tuple[str, ...]] = {}
        files = [(table, file) for variant in family.variants for table, file in self._files(variant)]
        self._sizes.expect_all(files, profiles, {one.name: one.options.slots for one in self._devices})
        for variant in family.variants:
            if marker is not None and marker.is_doubted(*self._marked(variant.name)):
                self._try(variant.name)

    @property
    def name(self) -> str:
        """What the scheduler calls the family: its name, or the alias that it was given."""
        return self.loaded.family.name

    @property
    def bytes(self) -> Mapping[str, int]:
        """What each file is thought to take in memory, on all devices: see `ModelSizes`."""
        return self._sizes.bytes

    @property
    def revised(self) -> int:
        """How often what its files are thought to take was changed."""
        return self._sizes.revised

    @property
    def open_tokenizer(self) -> dict[str, int]:
        """The tokenizer, where it is open, and the bytes that it is thought to take."""
        name = self._sizes.tokenizer
        return {name: self.bytes[name]} if name is not None and self.preparer.holds_tokenizer else {}

    @cached_property
    def openings(self) -> tuple[tuple[int, int], ...]:
        """Its variants by index, and what opening a model of each takes for a moment: the largest first."""
        names = [variant.name for variant in self.loaded.family.variants]
        return tuple(sorted(enumerate(map(self.opening_bytes, names)), key=lambda one: -one[1]))

    def opening_bytes(self, variant: str) -> int:
        """What opening a model of a variant takes for a moment, beside what it keeps, at the most: see `ModelSizes`."""
        return max((self._sizes.opening.get(key, 0) for key in self.keys(variant)), default=0)

    def size_opening(self, variant: str) -> int:
        """What a variant alone is thought to take while it is opened, bytes."""
        return self.size(variant) + self.opening_bytes(variant)

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

    def tables_bytes(self, variant: str, held: Container[str]) -> int:
        """What of it are lookup tables, beside those that are `held`, maybe for other families."""
        return sum(self.bytes[file] for file in self.keys(variant) if is_table(file) and file not in held)

    def sizes(self, variant: int) -> dict[str, int]:
        """Its files, with what each is thought to take in memory."""
        return {file: self.bytes[file] for file in self.keys(self.loaded.family.variants[variant].name)}

    def keys(self, variant: str) -> tuple[str, ...]:
        """The files of a variant as `bytes` calls them."""
        known = self._keys.get(variant)
        if known is None:
            known = self._keys[variant] = self._sizes.keys(self._held.files(variant))
        return known

    def open(self, variant: str, *, in_haste: bool = False) -> Opened:
        """Read, check, open and warm one variant on all devices; stages that another one has in memory are shared.

        What it takes in memory is learnt from that, but `in_haste` only once: what requests leave free has to be handed
        back before and after, which takes a fifth as long as a small model, and is left to the caller then.
        Raises `ModelLoadError`, `RepositoryError` where it cannot be served on each of them: it is refused from then
        on, but for a `NotNowError`. A `KilledError` is one of these until it is the third in a row.
        """
        started_s = time.perf_counter()
        manifest = self.loaded.manifest.variant(variant)
        try:
            self.preparer.open()
            held = {key for name in self.paths for key in self.keys(name)}
            is_known = in_haste and self._sizes.are_seen(self.keys(variant), held)
            before = 0 if is_known else self._footprint.models_bytes()
            # Tables are checked when they are read, which those in memory are not again.
            files = set(self.loaded.manifest.files_of(manifest)) - self.loaded.manifest.table_files
            broken = self._folder.broken_files(files)
            if broken:
                raise RepositoryError("; ".join(f"{path}: {fault}" for path, fault in broken.items()))
            opened = self._open_on_all(manifest)
        except KilledError as error:
            self._killed[variant] += 1
            if self._killed[variant] < KILLED_TIMES:
                self._not_now(variant, error)
                raise
            self._refuse(variant, error)
            raise ModelLoadError(str(error)) from error
        except NotNowError as error:
            self._not_now(variant, error)
            raise
        except (ModelLoadError, RepositoryError) as error:
            self._refuse(variant, error)
            raise
        self._killed.pop(variant, None)
        if not is_known:
            self._sizes.took(self.keys(variant), held, self._footprint.models_bytes() - before)
        return Opened(opened, time.perf_counter() - started_s)

    def _open_on_all(self, variant: VariantManifest) -> OnDevices:
        try:
            return self._held.open(variant, self.preparer, self._rows())
        except (ModelLoadError, RepositoryError):
            if len(self._devices) > 1:
                # Closed on those before, but executors that were made meanwhile have it still.
                self._footprint.give_back()
            raise

    def hold(self, variant: str, opened: Opened) -> None:
        """Have a variant in memory from now on, on all devices."""
        self._held.hold(variant, opened.paths)

    def drop(self, variant: str) -> None:
        """Close a variant that no batch uses, on all devices; stages that another one in memory shares stay open."""
        self._held.drop(variant)
        if not self.paths:
            self.preparer.close()
            self.__dict__.pop("_evidence", None)

    def _files(self, variant: VariantProfile) -> Iterable[tuple[str, ModelFile]]:
        """The models of a variant, each with the name of its table in profiles."""
        names = variant.stages if self._staged and variant.stages != ("whole",) else (variant.name,)
        return zip(names, self._held.files(variant.name), strict=True)

    def _not_now(self, variant: str, error: NotNowError) -> None:
        logger.warning("family %s: variant %s is not loaded for now: %s", self.name, variant, error)

    def _refuse(self, variant: str, error: Exception) -> None:
        logger.error(REFUSED, self.name, variant, error)
        self.refused[variant] = str(error).replace(f"{self._folder.path}/", "")

    def _profiles(self) -> dict[str, FamilyProfile | None]:
        """What is stored of this machine, by device."""
        return {device.name: load_profile(self._folder, device.options.threads) for device in self._devices}

    def _try(self, variant: str) -> None:
        """Load a variant and drop it: nothing else goes on at a start, so that an end by it is no one else's."""
        # It is refused by name then.
        with suppress(ModelLoadError, RepositoryError):
            self.hold(variant, self.open(variant))
            self.drop(variant)

    def _marked(self, variant: str) -> tuple[str, str, str]:
        """What the marker calls a variant."""
        return self.loaded.manifest.name, self.loaded.manifest.revision, variant

    @cached_property
    def _evidence(self) -> Evidence | None:
        return read_evidence(self._folder, [variant.name for variant in self.loaded.family.variants])

    def _rows(self) -> Sequence[Row]:
        try:
            return sample_rows(self._folder, self.preparer)
        except RepositoryError:
            return ()
